"""What the benchmarks of losses and of the head time: steps, and products no step can do without.

No flags here, so that several benchmarks can stand on it in one process.
"""

import tensorflow as tf

import circle_tf
from benchmarks.data import noisy_classes

__all__ = ["head_products", "head_step", "loss_step", "make_batch", "pair_products"]

_PANEL = 4096


def make_batch(rows, dim):
    """Unit rows float32 `[B, D]` and ids int64 `[B]`, four of a class."""
    embeddings, labels = noisy_classes(rows=rows, dim=dim, per_class=4)
    return tf.math.l2_normalize(tf.constant(embeddings), axis=1), tf.constant(labels, tf.int64)


def pair_products(rows):
    """Function of `[B, D]` that does the two products alone."""

    @tf.function(jit_compile=True)
    def products(anchors, keys):
        return tf.matmul(tf.matmul(anchors, keys, transpose_b=True), keys)

    if rows <= 2 * _PANEL:
        return lambda unit: products(unit, unit)
    return lambda unit: [
        products(unit[start : start + _PANEL], unit) for start in range(0, rows, _PANEL)
    ][-1]


def loss_step(loss, *, jit_compile=False):
    """Function of (unit rows, ids) to the gradient, as one `tf.function`."""

    @tf.function(jit_compile=jit_compile)
    def step(unit, ids):
        with tf.GradientTape() as tape:
            tape.watch(unit)
            value = loss(ids, unit)
        return tape.gradient(value, unit)

    return step


def head_products(unit, weights):
    """Function that does the three products alone."""

    @tf.function(jit_compile=True)
    def products(unit, weights):
        logits = tf.matmul(unit, weights, transpose_b=True)
        return tf.matmul(logits, weights), tf.matmul(logits, unit, transpose_a=True)

    return lambda: products(unit, weights)[0][0, 0].numpy()


def head_step(unit, ids, weights, **options):
    """Function that computes the gradients by embeddings and class weights."""
    head = circle_tf.CircleHead(len(weights), **options)
    head.build((unit.shape, ids.shape))
    head.class_weights.assign(weights)
    variable = head.class_weights.value

    @tf.function
    def step(unit, ids):
        with tf.GradientTape() as tape:
            tape.watch(unit)
            loss = tf.reduce_mean(head((unit, ids), training=True))
        return tape.gradient(loss, [unit, variable])

    return lambda: step(unit, ids)[0][0, 0].numpy()
