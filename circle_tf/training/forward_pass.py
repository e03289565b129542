"""The forward pass of one replica: what it computes, and what it would write."""

from typing import Any, NamedTuple

import tensorflow as tf

from circle_tf.distribute import collectives, compilation
from circle_tf.training import keras_private

__all__ = ["Forward", "forward"]


class Forward(NamedTuple):
    """What a forward pass gives: nothing has been written to a variable yet."""

    outputs: Any
    losses: list
    variables: list
    values: list


def forward(model, x, *, training, compiled, state=()):
    """Calls the model without writing to its variables.

    Args:
        model: `EmbeddingModel`.
        x: its inputs.
        training: bool.
        compiled: whether XLA compiles the pass.
        state: pairs (Keras variable, value) to take in place of the variables' own values.

    Returns:
        `Forward`: outputs, losses that layers added, variables that layers assigned to, and what.

    Raises:
        NotImplementedError: a layer assigns to a weight that is trained.
    """
    assigned = []
    context = collectives.replica_context()
    shift = 0 if context is None else context.replica_id_in_sync_group

    def call(x):
        with keras_private.RecordingScope(shift, state) as scope:
            outputs = keras_private.call_model(model, x, training=training)
        losses = [*scope.losses, *model.losses]
        variables, values = scope.updates()
        _check_not_trained(variables)
        assigned[:] = variables
        if compiled:
            compilation.check_graph(tf.compat.v1.get_default_graph())
        return outputs, losses, values, keras_private.masks_of(outputs)

    if compiled:
        # Made anew at each trace: it captures this replica's variables and no other's.
        call = tf.function(call, jit_compile=True, autograph=False)
    outputs, losses, values, masks = call(x)
    keras_private.copy_masks(outputs, masks)
    return Forward(outputs, losses, list(assigned), values)


def _check_not_trained(variables):
    for variable in variables:
        if variable.trainable:
            raise NotImplementedError(
                f"A layer assigns to the weight {variable.path!r}, which is trained, in its "
                "forward pass (SpectralNormalization does): EmbeddingModel does not train it over "
                "several replicas, nor by accumulated or cached gradients, as Keras would. Take "
                "the layer out, or train on one device without these."
            )
