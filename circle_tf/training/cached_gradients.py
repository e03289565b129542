"""Gradients of a loss over a large batch in the memory of a small one.

A loss on pairs needs all embeddings at once, but not all activations. So the batch passes twice:
first without gradient, micro-batch by micro-batch, for the embeddings; then the loss on all of
them gives its gradient by the embeddings; with that each micro-batch passes again, backwards too.
"""

import contextlib

import tensorflow as tf

from circle_tf.layers import loss_layers
from circle_tf.training import forward_pass, keras_private

__all__ = ["check_layers", "dense", "gradients"]


def check_layers(model):
    """Refuses layers for which a micro-batch is not enough.

    Args:
        model: `EmbeddingModel`.

    Raises:
        ValueError: layers that compare the rows of a batch, a model without symbolic outputs.
    """
    several = model.distribute_strategy.num_replicas_in_sync > 1
    for layer in keras_private.all_layers(model):
        exchanges = several and getattr(layer, "synchronized", False)
        if isinstance(layer, loss_layers.LossLayer) or exchanges:
            raise ValueError(
                f"cached_gradient_batch: the layer {layer.name!r} ({type(layer).__name__}) wants "
                "the whole batch within the forward pass, which sees one micro-batch at a time. "
                "Use the loss in compile(loss=...), or BatchNormalization(synchronized=False)."
            )
    if not hasattr(model, "outputs"):
        raise ValueError(
            "cached_gradient_batch wants a functional model: EmbeddingModel(inputs, outputs)."
        )


def gradients(model, x, loss_of, *, size, compiled):
    """The gradients of a loss by the model's trainable variables.

    Both passes of a micro-batch see the same random masks and the same state of all layers; what
    layers write (moving statistics) is that of one pass, micro-batch after micro-batch.

    Args:
        model: compiled `EmbeddingModel`.
        x: inputs `[B, ...]`, or a structure of such.
        loss_of: function of `forward_pass.Forward`, of the whole batch, to (loss, scaled loss).
        size: int, rows of a micro-batch; the last one may be smaller.
        compiled: whether XLA compiles the passes.

    Returns:
        `(passed, loss, gradients)`: of the whole batch; gradients are of the scaled loss, None for
        variables on which nothing depends.

    Raises:
        ValueError: layers add losses of their own in the forward pass.

    References:
        Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"
        (GradCache), 2021.
    """
    loops = _Loops(model, x, size=size, compiled=compiled)
    outputs = loops.outputs()
    flat = tf.nest.flatten(outputs)
    raw = [variable.value for variable in model.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(flat)
        # The losses of weights, which do not depend on the batch, count once.
        passed = forward_pass.Forward(outputs, list(model.losses), [], [])
        loss, scaled = loss_of(passed)
    upstream, direct = tape.gradient(scaled, (flat, raw))
    summed, variables, values = loops.backward(upstream, raw)
    total = [_sum(one, other) for one, other in zip(summed, direct, strict=True)]
    return passed._replace(variables=variables, values=values), loss, total


class _Loops:
    """Both passes over the micro-batches, one micro-batch in memory at a time."""

    def __init__(self, model, x, *, size, compiled):
        self._model, self._x, self._size, self._compiled = model, x, size, compiled
        # One micro-batch also for no rows: a replica without rows has gradients, of zero.
        self._count = tf.maximum(-(-tf.shape(tf.nest.flatten(x)[0])[0] // size), 1)
        self._variables = list(model.non_trainable_variables)
        self._start = [tf.convert_to_tensor(variable.value) for variable in self._variables]

    def outputs(self):
        """Outputs for the whole batch, in the model's structure."""
        specs, structure = self._model.outputs, []
        arrays = [
            tf.TensorArray(
                spec.dtype,
                size=self._count,
                infer_shape=False,
                element_shape=[None, *spec.shape[1:]],
            )
            for spec in specs
        ]

        def add(index, passed, arrays):
            structure[:] = [passed.outputs]
            outputs = tf.nest.flatten(passed.outputs)
            pairs = zip(arrays, outputs, strict=True)
            return [array.write(index, output) for array, output in pairs]

        arrays, _, _ = self._each(add, arrays)
        rows = tf.nest.flatten(self._x)[0].shape[0]
        flat = [
            tf.ensure_shape(array.concat(), [rows, *spec.shape[1:]])
            for array, spec in zip(arrays, specs, strict=True)
        ]
        return tf.nest.pack_sequence_as(structure[0], flat)

    def backward(self, upstream, raw):
        """`(gradients, variables, values)`: summed, None where none; what layers have written.

        Args:
            upstream: gradient by each of the flat outputs, or None.
            raw: variables to differentiate by.
        """
        used = [index for index, gradient in enumerate(upstream) if gradient is not None]
        upstream = [upstream[index] for index in used]
        reached = []

        def add(index, passed, sums, tape):
            flat = tf.nest.flatten(passed.outputs)
            gradients = tape.gradient(
                [flat[index] for index in used],
                raw,
                output_gradients=self._rows(upstream, index),
            )
            reached[:] = [gradient is not None for gradient in gradients]
            return [_sum(one, other) for one, other in zip(sums, gradients, strict=True)]

        sums = [tf.zeros(variable.shape, variable.dtype) for variable in raw]
        sums, state, written = self._each(add, sums, recorded=True)
        sums = [total if there else None for total, there in zip(sums, reached, strict=True)]
        changed = [
            pair for pair in zip(self._variables, state, strict=True) if id(pair[0]) in written
        ]
        return sums, [variable for variable, _ in changed], [value for _, value in changed]

    def _each(self, add, results, *, recorded=False):
        """Passes each micro-batch in turn; `(results, last state, ids of variables written)`."""
        written = set()

        def body(index, state, results):
            tape = tf.GradientTape() if recorded else None
            with tape or contextlib.nullcontext():
                passed = self._pass(index, state)
            new = {id(v): value for v, value in zip(passed.variables, passed.values, strict=True)}
            written.update(new)
            state = [new.get(id(v), old) for v, old in zip(self._variables, state, strict=True)]
            options = {"tape": tape} if recorded else {}
            return index + 1, state, add(index, passed, results, **options)

        _, state, results = tf.while_loop(
            lambda index, *_: index < self._count,
            body,
            (tf.constant(0), self._start, results),
            parallel_iterations=1,
        )
        return results, state, written

    def _pass(self, index, state):
        passed = forward_pass.forward(
            self._model,
            self._rows(self._x, index),
            training=True,
            compiled=self._compiled,
            state=[*zip(self._variables, state, strict=True)],
        )
        if len(passed.losses) > len(self._model.losses):
            raise ValueError(
                "cached_gradient_batch: layers that add losses in the forward pass (add_loss, "
                "activity regularisation) would add one for each micro-batch. Remove them, or "
                "compile with cached_gradient_batch=None."
            )
        if any(mask is not None for mask in keras_private.masks_of(passed.outputs)):
            raise ValueError("cached_gradient_batch: outputs with Keras masks are not supported.")
        return passed

    def _rows(self, values, index):
        start = index * self._size
        return tf.nest.map_structure(lambda value: value[start : start + self._size], values)


def _sum(one, other):
    parts = [dense(part) for part in (one, other) if part is not None]
    return sum(parts[1:], start=parts[0]) if parts else None


def dense(gradient):
    """A gradient as one tensor, also where rows were looked up."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows = gradient.dense_shape[0]
    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
