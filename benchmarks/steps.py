"""What several benchmarks time: steps, and products that none can do without.

No flags here, so that several benchmarks can stand on it in one process.
"""

import numpy as np
import tensorflow as tf

import circle_tf
from benchmarks.data import noisy_classes
from circle_tf.ops import numerics

__all__ = [
    "bare_search",
    "head_products",
    "head_step",
    "head_training_step",
    "loss_step",
    "make_batch",
    "memory_products",
    "memory_step",
    "pair_products",
]

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


def head_training_step(classes, *, rows, dim, optimizer, **options):
    """Function that does a whole step of `CircleHead`, update included, and returns its loss."""
    head = circle_tf.CircleHead(classes, **options)
    embeddings, _ = noisy_classes(rows=rows, dim=dim, per_class=4)
    batch = tf.constant(embeddings)
    ids = tf.constant(np.random.default_rng(0).integers(0, classes, rows))
    head.build((batch.shape, ids.shape))
    optimizer = head.prepare_optimizer(optimizer)
    optimizer.build([head.class_weights])

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(batch)
            loss = tf.reduce_mean(head((batch, ids), training=True))
        of_rows, of_weights = tape.gradient(loss, [batch, head.class_weights.value])
        optimizer.apply([of_weights], [head.class_weights])
        return loss + 0 * tf.reduce_sum(of_rows)

    return lambda: float(step())


def memory_step(embeddings, labels, *, size):
    """A function that does one training step of a full `CrossBatchMemory`."""
    layer = circle_tf.CrossBatchMemory(size, margin=0.25, gamma=80.0)
    layer.build(((None, embeddings.shape[1]), (None,)))
    rows, ids = noisy_classes(rows=size, dim=embeddings.shape[1], per_class=4)
    layer.memory_keys.assign(numerics.safe_normalize(rows))
    layer.memory_ids.assign(ids)
    layer.memory_rows.assign(np.arange(size))
    layer.rows_seen.assign(size)
    rows, ids = tf.constant(embeddings), tf.constant(labels)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_mean(layer((rows, ids), training=True))
        return loss, tape.gradient(loss, rows)

    return lambda: step()[1].numpy()


def memory_products(embeddings, *, size):
    """A function that does the matrix products of a step alone."""
    rows = tf.constant(embeddings)
    keys = tf.random.normal([len(embeddings) + size, embeddings.shape[1]])

    @tf.function(jit_compile=True)
    def step(rows, keys):
        # Not reducible to less: the second product needs all of the first.
        return tf.matmul(tf.matmul(rows, keys, transpose_b=True), keys)

    return lambda: step(rows, keys).numpy()


def bare_search(queries, gallery, *, k, chunk_size):
    """Nearest rows `[Q, k]` by float32 matmul and top_k of unit rows."""
    keys = tf.math.l2_normalize(tf.constant(gallery), axis=1)
    anchors = tf.math.l2_normalize(tf.constant(queries), axis=1)
    parts = (anchors[at : at + chunk_size] for at in range(0, len(queries), chunk_size))
    found = [_bare_part(part, keys, k) for part in parts]
    return np.concatenate([part.numpy() for part in found])


@tf.function(reduce_retracing=True)
def _bare_part(part, keys, k):
    return tf.math.top_k(tf.matmul(part, keys, transpose_b=True), k).indices
