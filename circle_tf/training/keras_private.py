"""Everything of Keras' private side that training over replicas needs; its losses: replica_loss.py.

`EmbeddingModel` imports this, and calls `check`, only where it runs steps of its own.
"""

import concurrent.futures
import functools

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import sharded_variable
from circle_tf.optimizers import extension
from circle_tf.training import all_rows, replica_loss

__all__ = [
    "TESTED_KERAS",
    "RecordingScope",
    "all_layers",
    "batch_signature",
    "build_from",
    "call_model",
    "check",
    "compile_by_xla",
    "compute_loss",
    "copy_masks",
    "for_replicas",
    "layers_within",
    "loss_tracker",
    "masks_of",
    "optimizer_strategy",
    "variables_of",
    "without_optionals",
]

TESTED_KERAS = "3.10 to 3.15"


class RecordingScope(keras.StatelessScope):
    """A `keras.StatelessScope` that knows which variables were assigned, not only their ids.

    The state of a random seed generator is shown shifted by the replica's number, so that replicas
    draw different dropout masks; the recorded update is shifted back, so that the state itself
    stays the same on all.

    Args:
        shift: int or scalar, this replica's shift of the seeds.
        state: pairs (variable, value) to show in place of the variables' own values.
    """

    def __init__(self, shift=0, state=()):
        self._shift = shift
        state = [(v, value + self._seed_shift(v) if _is_seed(v) else value) for v, value in state]
        super().__init__(state_mapping=state, collect_losses=True)
        self._assigned = {}

    def add_update(self, update):
        """Called by Keras for each assignment."""
        super().add_update(update)
        self._assigned[id(update[0])] = update[0]

    def get_current_value(self, variable):
        """Called by Keras for each read: None means the variable itself."""
        value = super().get_current_value(variable)
        if value is None and _is_seed(variable):
            return variable._value + self._seed_shift(variable)
        return value

    def updates(self):
        """`(variables, values)` assigned within the scope."""
        variables = list(self._assigned.values())
        values = [tf.convert_to_tensor(self.state_mapping[id(v)]) for v in variables]
        shifts = [self._seed_shift(v) if _is_seed(v) else None for v in variables]
        values = [v if s is None else v - s for v, s in zip(values, shifts, strict=True)]
        return variables, values

    def _seed_shift(self, variable):
        shift = tf.cast(self._shift, variable._value.dtype) * _SEED_STRIDE
        return tf.stack([shift, tf.zeros_like(shift)])


# Seeds of neighbouring replicas stay apart even for users who number their own seeds from 0.
_SEED_STRIDE = 1_000_003


def _is_seed(variable):
    return variable.name == "seed_generator_state"


def call_model(model, x, *, training):
    """The outputs of a model, called as Keras' own steps do."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def compute_loss(model, x, y, y_pred, sample_weight, *, training):
    """The compiled loss, also of models whose `compute_loss` does not take `training`.

    Scalar, or a vector for the reduction `none`.
    """
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def all_layers(model):
    """The model and all layers below it: list."""
    return model._flatten_layers()


def layers_within(layer):
    """The layers that a layer or a model holds itself: list, of a functional model in its order."""
    if isinstance(layer, keras.Model):
        return list(layer.layers)
    return list(layer._flatten_layers(include_self=False, recursive=False))


def build_from(model, specs):
    """Makes all variables of a compiled model from the `tf.TensorSpec`s of a batch alone."""
    model._symbolic_build(data_batch=without_optionals(specs))


def without_optionals(data):
    """A batch with None where Keras put an empty `tf.experimental.Optional`."""
    empty = (tf.experimental.Optional, tf.OptionalSpec)
    return keras.tree.map_structure(lambda v: None if isinstance(v, empty) else v, data)


def loss_tracker(model):
    """The metric behind `logs["loss"]` of a compiled model."""
    return model._loss_tracker


def optimizer_strategy(optimizer):
    """The strategy under which an optimizer was made."""
    return extension.inner_optimizer(optimizer)._distribution_strategy


def variables_of(optimizer):
    """The variables that a built optimizer was made for, in the order of its moments: list."""
    return list(extension.inner_optimizer(optimizer)._trainable_variables)


class ReplicaUpdates:
    """Methods of a Keras optimizer, before its own: for gradients summed over replicas already.

    Its moments of sharded variables are in the same shards.
    """

    knows_shards = False  # Whether it was this class that made the variables.

    def build(self, variables):
        """As Keras'."""
        self.knows_shards = self.knows_shards or not self.built
        super().build(variables)

    def add_variable_from_reference(self, reference_variable, name=None, initializer="zeros"):
        """As Keras', which knows of no shards."""
        if not sharded_variable.is_sharded(reference_variable):
            return super().add_variable_from_reference(
                reference_variable, name=name, initializer=initializer
            )
        with keras.name_scope(self.name, caller=self):
            moment = sharded_variable.ShardedVariable(
                initializer,
                tuple(reference_variable.shape),
                drawn_whole=False,
                dtype=reference_variable.dtype,
                trainable=False,
                name=f"{reference_variable.path.replace('/', '_')}_{name or 'var'}",
            )
        self._track_variable(moment)
        return moment

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return list(grads_and_vars)

    # Keras' own merges the replicas, which it cannot within its condition on the step, and hands a
    # whole matrix to each of its shards. Averages are alike on all replicas: each copy has its own.
    def _overwrite_model_variables_with_average_value(self, trainable_variables):
        strategy, context = self._distribution_strategy, tf.distribute.get_replica_context()
        averages = self._model_variables_moving_average
        for variable, average in zip(trainable_variables, averages, strict=True):
            if context is not None and context.strategy is strategy:
                variable.assign(tf.convert_to_tensor(average.value))
            else:
                strategy.extended.update(
                    variable.value, lambda own, value: own.assign(value), args=(average.value,)
                )


# The optimizers within a MultiOptimizer sum the gradients once more; the other was found apart from
# one device by all of its weights, the rest of keras.optimizers equal.
_NOT_OVER_REPLICAS = ("MultiOptimizer", "ScheduleFreeAdamW")


def for_replicas(optimizer, variables):
    """The optimizer whose steps take gradients as they are: summed over replicas.

    Args:
        optimizer: Keras optimizer, `LossScaleOptimizer` or not. It stays as it is.
        variables: the trainable variables, some of them sharded or none.

    Returns:
        Keras optimizer on the same state, the inner one `ReplicaUpdates`.

    Raises:
        ValueError: it has made its variables, without knowing of the shards.
        NotImplementedError: its steps over several replicas are not those of one device.
    """
    kind = type(extension.inner_optimizer(optimizer))
    if kind.__name__ in _NOT_OVER_REPLICAS or kind.apply is not keras.Optimizer.apply:
        raise NotImplementedError(
            f"{kind.__name__} over several replicas does not make the steps that it makes on one "
            "device. Use another of keras.optimizers, or train on one device."
        )
    optimizer = extension.extended(optimizer, ReplicaUpdates)
    inner = extension.inner_optimizer(optimizer)
    if inner.built and not inner.knows_shards and any(map(sharded_variable.is_sharded, variables)):
        raise ValueError(
            "The optimizer has made its variables before compile, without knowing of the shards of "
            "CircleHead. Give compile a new optimizer."
        )
    return optimizer


def batch_signature(epoch_iterator):
    """Specs of one replica's batch of Keras' `TFEpochIterator`; none is taken from the data."""
    spec = epoch_iterator._distributed_dataset.element_spec
    return tf.nest.map_structure(_one_spec, spec)


def _one_spec(spec):
    parts = getattr(spec, "_value_specs", None)
    return parts[0] if parts else spec


def masks_of(outputs):
    """Keras masks of a structure of tensors, flat, None where there is none."""
    return [compat.get_keras_mask(value) for value in tf.nest.flatten(outputs)]


def copy_masks(outputs, masks):
    """Sets the masks that `masks_of` gave (they are lost where a tf.function returns)."""
    for value, mask in zip(tf.nest.flatten(outputs), masks, strict=True):
        if mask is not None:
            compat.set_keras_mask(value, mask)


@functools.cache
def check():
    """Tries each private part of Keras that steps of our own need, once in a process.

    Raises:
        RuntimeError: one of them behaves otherwise.
    """
    try:
        # In a thread of its own, where no strategy's scope and no graph of the caller's holds.
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            parts = (_check_optimizer, _check_scope, _check_metric)
            for part in (*parts, replica_loss.check, all_rows.check):
                pool.submit(part).result()
    except Exception as error:
        raise RuntimeError(
            "circle_tf.EmbeddingModel trains over several replicas, and with accumulated or cached "
            f"gradients, by private parts of Keras. They were tested with Keras {TESTED_KERAS}; "
            f"Keras {keras.__version__} behaves otherwise: {error!r}. Install one of these "
            "versions, or train on one device without them."
        ) from error


def compile_by_xla(model):
    """Has XLA compile the steps of a compiled model also under `enable_op_determinism`.

    Keras then refuses XLA for every net; `circle_tf.distribute.compilation` refuses those that have
    operations without a deterministic form.

    Args:
        model: keras.Model, compiled without XLA.

    Raises:
        RuntimeError: this Keras keeps the choice elsewhere.
    """
    model._jit_compile = True
    if not model.jit_compile:
        raise RuntimeError(
            f"XLA and determinism together are tested with Keras {TESTED_KERAS}; Keras "
            f"{keras.__version__} behaves otherwise. Use jit_compile=False."
        )


def _check_optimizer():
    seen = []

    class Watched(ReplicaUpdates):
        def _all_reduce_sum_gradients(self, grads_and_vars):
            seen.extend(grads_and_vars)
            return super()._all_reduce_sum_gradients(grads_and_vars)

    optimizer = keras.optimizers.SGD(1.0)
    if not callable(getattr(optimizer, "_all_reduce_sum_gradients", None)):
        raise RuntimeError("an optimizer sums gradients over replicas elsewhere")
    variable = keras.Variable([1.0])
    extension.extended(optimizer, Watched).apply([tf.constant([0.5])], [variable])
    if not seen or variable.numpy()[0] != 0.5:
        raise RuntimeError("an optimizer's step no longer reduces by itself")
    if optimizer_strategy(optimizer) is None:
        raise RuntimeError("an optimizer's strategy is kept elsewhere")


def _check_metric():
    states = keras.metrics.Mean().variables
    if {getattr(state, "synchronization", None) for state in states} != {"on_read"}:  # 3.9, say.
        raise RuntimeError("a metric's state is not each replica's own")


def _check_scope():
    layer = keras.layers.Dropout(0.5, seed=1)
    layer.build((None, 4))
    activity = keras.layers.ActivityRegularization(1.0)
    before = [variable.numpy() for variable in layer.variables]
    with RecordingScope(shift=1) as scope:
        layer(tf.ones([1, 4]), training=True)
        activity(tf.ones([1, 4]))
    variables, values = scope.updates()
    if len(variables) != 1 or not _is_seed(variables[0]):
        raise RuntimeError("seeds are kept elsewhere")
    if [float(loss) for loss in scope.losses] != [4.0]:
        raise RuntimeError("layers add losses elsewhere")
    if (values[0].numpy() - before[0]).tolist() != [0, 1]:
        raise RuntimeError("seeds advance otherwise")
