"""How near a loss can come to its matrix products: the passes that no exact one can leave out.

    python -m benchmarks.floors
    python -m benchmarks.floors --only=pair_256,pair_1024

A softmax-like loss whose similarities are held must, beside its products, read the matrix once and
take an exponential of each of its numbers forward, and read it and write the gradient over it with
as many backward (twice as many where each pair counts for both of its sides). Class weights are
normalised, and their gradient taken through it. Here these passes are XLA's, with nothing else in
them, at the same sizes, in turn with the products, with the loss itself and with an XLA call that
does nothing; `floor` is products and passes together.
"""

import numpy as np
import tensorflow as tf
from absl import app, flags

import circle_tf
from benchmarks import steps, timing
from benchmarks.data import noisy_classes

__all__ = ["CASES", "measure"]


@tf.function(jit_compile=True)
def _forward(similarities):
    return tf.reduce_sum(tf.exp(similarities), axis=1)


@tf.function(jit_compile=True)
def _backward(similarities, rows):
    return rows[:, None] * tf.exp(similarities)


@tf.function(jit_compile=True)
def _backward_of_both(similarities, rows):
    return rows[:, None] * tf.exp(similarities) + rows * tf.exp(similarities - rows)


@tf.function(jit_compile=True)
def _normalised(weights):
    return weights * tf.math.rsqrt(tf.reduce_sum(tf.square(weights), axis=1, keepdims=True))


@tf.function(jit_compile=True)
def _through_normalising(unit, gradient):
    return gradient - unit * tf.reduce_sum(unit * gradient, axis=1, keepdims=True)


@tf.function(jit_compile=True)
def _nothing(value):
    return value + 1


def pair(rows, dim):
    """Functions of pair-wise Circle loss: what it does, its products, its passes."""
    unit, ids = steps.make_batch(rows, dim)
    step, products = steps.loss_step(circle_tf.CircleLoss()), steps.pair_products(rows)
    similarities, scales = tf.matmul(unit, unit, transpose_b=True), tf.ones([rows])
    return {
        "ours": lambda: step(unit, ids),
        "products": lambda: products(unit),
        "forward": lambda: _forward(similarities),
        "backward": lambda: _backward_of_both(similarities, scales),
    }


def head(classes, rows, dim):
    """Functions of `CircleHead` whose cosines are held."""
    unit, _ = steps.make_batch(rows, dim)
    random = np.random.default_rng(0)
    ids = tf.constant(random.integers(0, classes, rows))
    weights = random.standard_normal((classes, dim), np.float32)
    step = steps.head_step(unit, ids, weights, max_bytes=4 * rows * classes)
    products = steps.head_products(unit, weights)
    cosines, scales, kept = tf.zeros([rows, classes]), tf.ones([rows]), tf.constant(weights)
    return {
        "ours": step,
        "products": products,
        "forward": lambda: _forward(cosines),
        "backward": lambda: _backward(cosines, scales),
        "normalising": lambda: _normalised(kept),
        "normalising, backward": lambda: _through_normalising(kept, kept),
    }


def memory(size, rows, dim):
    """Functions of `CrossBatchMemory`, whose pairs count for the batch's side alone."""
    embeddings, labels = noisy_classes(rows=rows, dim=dim, per_class=4)
    similarities, scales = tf.zeros([rows, rows + size]), tf.ones([rows])
    return {
        "ours": steps.memory_step(embeddings, labels, size=size),
        "products": steps.memory_products(embeddings, size=size),
        "forward": lambda: _forward(similarities),
        "backward": lambda: _backward(similarities, scales),
    }


CASES = {
    "pair_64": ("pairs, B 64, D 128", pair, {"rows": 64, "dim": 128}),
    "pair_256": ("pairs, B 256, D 128", pair, {"rows": 256, "dim": 128}),
    "pair_1024": ("pairs, B 1,024, D 512", pair, {"rows": 1024, "dim": 512}),
    "memory_16384": (
        "batch of 256 and a memory of 16,384, D 128",
        memory,
        {"size": 16_384, "rows": 256, "dim": 128},
    ),
    "head_128": (
        "classes, C 100,000, B 256, D 128",
        head,
        {"classes": 100_000, "rows": 256, "dim": 128},
    ),
}


def measure(make, sizes, *, rounds, seconds=0.05):
    """Seconds of a case's functions, in turn.

    Args:
        make: from sizes to a dict of functions.
        sizes: dict.
        rounds: int.
        seconds: float, about how long a timing takes: short functions are called several times.

    Returns:
        dict of a function's name to `[rounds]` seconds; `nothing` of an XLA call that does nothing.
    """
    one = tf.constant(1.0)
    functions = {**make(**sizes), "nothing": lambda: _nothing(one)}
    timers = {}
    for name, function in functions.items():
        waiting = _waiting(function)
        waiting()
        calls = max(1, int(seconds / max(1e-5, timing.stopwatch(waiting)())))
        timers[name] = timing.stopwatch(waiting, calls=calls)
    return timing.interleaved(timers, rounds=rounds)


def _waiting(function):
    def call():
        found = function()
        if isinstance(found, tf.Tensor):
            found[(0,) * found.shape.rank].numpy()

    return call


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_list("only", list(CASES), "What to measure.")
    flags.DEFINE_integer("rounds", 15, "Timings of each, in turn.", lower_bound=1)


def main(_):
    """Prints the table."""
    rows = []
    for name in flags.FLAGS.only:
        told, make, sizes = CASES[name]
        times = measure(make, sizes, rounds=flags.FLAGS.rounds)
        ours, products, nothing = (times.pop(key) for key in ("ours", "products", "nothing"))
        passes = sum(times.values())
        rows.append(
            [
                told,
                *(float(np.median(found)) * 1e3 for found in (products, passes, nothing, ours)),
                timing.ratio(products + passes, products),
                timing.ratio(ours, products),
                timing.ratio(ours, products + passes),
            ]
        )
    timing.print_table(
        [
            "case",
            "products, ms",
            "passes, ms",
            "an empty call, ms",
            "ours, ms",
            "floor / products",
            "ours / products",
            "ours / floor",
        ],
        rows,
    )


if __name__ == "__main__":
    define_flags()
    app.run(main)
