"""Time of `CircleHead` beside its three matrix products and PyTorch's class-level losses.

    python -m benchmarks.head_benchmark
    python -m benchmarks.head_benchmark --classes=1000000 --dim=512 --rows=512 --rounds=1 --nopeers

Forward and backward, float32, without the optimizer. The floor is logits, and the gradients by
embeddings and class weights from them, compiled by XLA. Held and streamed, both with products of
float32 and of bfloat16, and a sample of 0.1 of the classes stand in one table with a plain PyTorch
circle-softmax and pytorch-metric-learning's ArcFace, which need `make bench-peers`.
"""

import contextlib

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import peers, steps, timing
from benchmarks.data import noisy_classes

_CLASSES = flags.DEFINE_integer("classes", 100_000, "Classes C.", lower_bound=2)
_DIM = flags.DEFINE_integer("dim", 128, "Numbers per embedding D.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 256, "Batch B.", lower_bound=2)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Timings of each, in turn.", lower_bound=1)
_PEERS = flags.DEFINE_bool("peers", True, "Time PyTorch too.")
_STREAMED_BYTES = 2**26


def timers_of(unit, ids, weights):
    """Our ways, by name."""
    cosines = 4 * len(unit) * len(weights)
    streamed = {"max_bytes": min(_STREAMED_BYTES, cosines - 1)}
    low = {"product_dtype": "bfloat16"}
    found = {
        "three products": steps.head_products(unit, weights),
        "streamed": steps.head_step(unit, ids, weights, **streamed),
        "streamed, bfloat16 products": steps.head_step(unit, ids, weights, **streamed, **low),
        "sample_rate=0.1": steps.head_step(unit, ids, weights, sample_rate=0.1),
    }
    if cosines <= 2**30:
        found["held"] = steps.head_step(unit, ids, weights, max_bytes=2**30)
        found["held, bfloat16 products"] = steps.head_step(
            unit, ids, weights, max_bytes=2**30, **low
        )
    return {name: timing.stopwatch(step) for name, step in found.items()}


def main(_):
    """Prints the table of one size."""
    embeddings, _ = noisy_classes(rows=_ROWS.value, dim=_DIM.value, per_class=4)
    rng = np.random.default_rng(0)
    unit = tf.math.l2_normalize(tf.constant(embeddings), axis=1)
    ids = rng.integers(0, _CLASSES.value, _ROWS.value)
    weights = rng.standard_normal((_CLASSES.value, _DIM.value), np.float32)
    timers = timers_of(unit, tf.constant(ids), weights)
    with contextlib.ExitStack() as stack:
        if _PEERS.value:
            inputs = {"embeddings": unit.numpy(), "labels": ids, "weights": weights}
            peer = stack.enter_context(peers.Peer("benchmarks.head_peers", inputs=inputs))
            timers["PyTorch circle-softmax"] = peer.timer("circle")
            timers["pytorch-metric-learning ArcFace"] = peer.timer("arcface")
        times = timing.interleaved(timers, rounds=_ROUNDS.value)
    print(f"\nC = {_CLASSES.value}, D = {_DIM.value}, B = {_ROWS.value}\n")
    timing.print_table(
        ["way", "ms", "ratio to three products"],
        [
            [name, 1e3 * float(np.median(seconds)), timing.ratio(seconds, times["three products"])]
            for name, seconds in times.items()
        ],
    )


if __name__ == "__main__":
    app.run(main)
