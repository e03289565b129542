"""Time of `CircleLoss` beside its matrix products, Keras' own Circle and pytorch-metric-learning.

    python -m benchmarks.loss_benchmark
    python -m benchmarks.loss_benchmark --rows=32768 --dim=512 --rounds=1 --nopeers
    python -m benchmarks.loss_benchmark --memory --rows=32768 --dim=512

Forward and backward, float32. The floor is two products compiled by XLA: rows times rows, and the
result times rows; above 8192 rows, in panels of 4096. Where a batch's matrix would take more than
2 GiB, Keras and peers are left out. --memory measures one batch alone: growth of the process' peak
over what it held with TensorFlow and the batch loaded. Peers need `make bench-peers`.
"""

import contextlib
import resource

import keras
import numpy as np
from absl import app, flags

import circle_tf
from benchmarks import peers, steps, timing

_ROWS = flags.DEFINE_multi_integer("rows", None, "Batch B; with --dim, pairwise.", lower_bound=2)
_DIM = flags.DEFINE_multi_integer("dim", None, "Numbers per embedding D.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Timings of each, in turn.", lower_bound=1)
_PEERS = flags.DEFINE_bool("peers", True, "Time pytorch-metric-learning too.")
_MEMORY = flags.DEFINE_bool("memory", False, "Measure memory instead of time.")
_SIZES = ((64, 128), (256, 128), (1024, 512), (4096, 128), (4096, 512))
_MARGIN, _GAMMA = 0.4, 80.0
_MOST_BYTES = 2**31


def ways_of(rows):
    """Ways to compute the gradient of a batch, by name."""
    ours = circle_tf.CircleLoss(_MARGIN, _GAMMA)
    found = {"circle_tf": steps.loss_step(ours)}
    if rows <= 1024:  # Compiled as a whole, many tiles take half a minute.
        found["circle_tf, step under XLA"] = steps.loss_step(ours, jit_compile=True)
    if 4 * rows**2 <= _MOST_BYTES:
        theirs = keras.losses.Circle(gamma=_GAMMA, margin=_MARGIN)
        found["keras.losses.Circle, XLA"] = steps.loss_step(theirs, jit_compile=True)
    return found


def measure(rows, dim, *, peer_for):
    """Prints the table of one batch."""
    unit, ids = steps.make_batch(rows, dim)
    calls = max(1, 2**23 // rows**2)
    floor = steps.pair_products(rows)
    timers = {"two products": timing.stopwatch(lambda: floor(unit)[0, 0].numpy(), calls=calls)}
    for name, step in ways_of(rows).items():
        timers[name] = timing.stopwatch(lambda f=step: f(unit, ids)[0, 0].numpy(), calls=calls)
    with contextlib.ExitStack() as stack:
        if _PEERS.value and 4 * rows**2 <= _MOST_BYTES:
            peer = stack.enter_context(peer_for(unit.numpy(), ids.numpy()))
            timers["pytorch-metric-learning"] = peer.timer("circle", margin=_MARGIN, gamma=_GAMMA)
        times = timing.interleaved(timers, rounds=_ROUNDS.value, warm_up=2)
    print(f"\nB = {rows}, D = {dim}\n")
    timing.print_table(
        ["way", "ms", "ratio to two products"],
        [
            [name, 1e3 * float(np.median(seconds)), timing.ratio(seconds, times["two products"])]
            for name, seconds in times.items()
        ],
    )


def measure_memory(rows, dim):
    """Prints the growth of the process' peak in one forward and backward pass."""
    unit, ids = steps.make_batch(rows, dim)
    step = steps.loss_step(circle_tf.CircleLoss(_MARGIN, _GAMMA))
    small, few = steps.make_batch(64, dim)
    step(small, few)
    before = _peak_mib()
    step(unit, ids).numpy()
    print(f"B = {rows}, D = {dim}: peak growth {_peak_mib() - before:.0f} MiB")
    print(f"(the embeddings {rows * dim * 4 / 2**20:.0f} MiB, the pairs {rows**2 / 2**18:.0f} MiB)")


def _peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _peer_for(embeddings, labels):
    return peers.Peer("benchmarks.loss_peers", inputs={"embeddings": embeddings, "labels": labels})


def main(_):
    """Measures the batches asked for."""
    if bool(_ROWS.value) != bool(_DIM.value):
        raise app.UsageError("--rows and --dim go together.")
    sizes = zip(_ROWS.value, _DIM.value, strict=True) if _ROWS.value else _SIZES
    for rows, dim in sizes:
        if _MEMORY.value:
            measure_memory(rows, dim)
        else:
            measure(rows, dim, peer_for=_peer_for)


if __name__ == "__main__":
    app.run(main)
