"""Everything of Keras' private side that training over replicas needs, each piece tried at import.

Import this module only where several replicas train: the trial makes variables.
"""

import concurrent.futures
import contextlib

import keras
import tensorflow as tf
from keras.src.backend import get_keras_mask, set_keras_mask
from keras.src.losses import loss as keras_loss
from keras.src.trainers.compile_utils import CompileLoss

from circle_tf.distribute import collectives, compilation, sharded_variable

__all__ = [
    "TESTED_KERAS",
    "RecordingScope",
    "ReplicaCompileLoss",
    "all_layers",
    "already_reduced",
    "batch_signature",
    "build_from",
    "call_model",
    "compile_loss_across",
    "compute_loss",
    "copy_masks",
    "inner_optimizer",
    "keep_shards",
    "loss_tracker",
    "masks_of",
    "optimizer_strategy",
    "without_optionals",
]

TESTED_KERAS = "3.15"


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


class ReplicaCompileLoss(CompileLoss):
    """Keras' compiled loss, with every part of it a replica's share of the global loss."""

    def build(self, y_true, y_pred):
        """Resolves the losses as Keras does, then makes each count over all replicas."""
        super().build(y_true, y_pred)
        self._flat_losses = [
            part._replace(loss=_ShareOfLoss.of(part.loss)) for part in self._flat_losses
        ]
        self._metrics[:] = [_ShareTracker(name=metric.name) for metric in self._metrics]


class _ShareTracker(keras.metrics.Mean):
    """Mean over batches of one output's loss, from the replicas' shares of it."""

    def update_state(self, values, sample_weight=None):
        # Keras hands over R times the share, and the local number of rows or, where that is not
        # static, None: then every batch has the same weight.
        parts = collectives.num_replicas()
        if values.shape.rank != 0:
            return super().update_state(values / parts)
        rows = 1 if sample_weight is None else collectives.all_reduce_sum(sample_weight)
        return super().update_state(values, sample_weight=rows / parts)


class _ShareOfLoss:
    """A Keras loss as a replica's share: own sum over the global divisor."""

    def __init__(self, loss):
        self._loss = loss
        self.name = loss.name

    @classmethod
    def of(cls, loss):
        """The loss itself where it counts over replicas already or has its own `__call__`."""
        plain = type(loss).__call__ is keras_loss.Loss.__call__
        knows = getattr(loss, "crosses_replicas", False) or not plain
        return loss if knows or loss.reduction in ("sum", "none", None) else cls(loss)

    def __call__(self, y_true, y_pred, sample_weight=None):
        rows = tf.shape(y_pred)[0]
        own, divisor, is_mean = self._parts(y_true, y_pred, sample_weight)
        if is_mean:
            # A function that reduces to a number itself: weigh each replica's by its rows.
            own, divisor = own * tf.cast(rows, own.dtype), (rows,)
        counts = collectives.all_reduce_sums([tf.cast(count, tf.float32) for count in divisor])
        return own / tf.cast(_divisor(counts), own.dtype)

    def _parts(self, y_true, y_pred, sample_weight):
        mask = get_keras_mask(y_pred)
        kinds = []

        def own(*tensors):
            y_true, y_pred, weight, mask = _unpacked(present, tensors)
            if mask is not None:
                set_keras_mask(y_pred, mask)
            total, counts, is_mean = _sum_and_counts(self._loss, y_true, y_pred, weight)
            kinds.append(is_mean)
            return total, counts

        present = [value is not None for value in (y_true, y_pred, sample_weight, mask)]
        given = [v for v in (y_true, y_pred, sample_weight, mask) if v is not None]
        total, counts = compilation.call_compiled(own, *map(tf.convert_to_tensor, given))
        return total, counts, kinds[-1]


def _unpacked(present, tensors):
    tensors = iter(tensors)
    return [tf.identity(next(tensors)) if there else None for there in present]


def _sum_and_counts(loss, y_true, y_pred, sample_weight):
    """Own weighted sum and what the global divisor is made of; the steps of `Loss.__call__`.

    Returns:
        `(total, counts, is_mean)`: counts as `_divisor` takes them; `is_mean` where the loss gave
        a single number instead of one per example.
    """
    mask = get_keras_mask(y_pred)
    values = loss.call(tf.cast(y_true, loss.dtype), tf.cast(y_pred, loss.dtype))
    values = tf.convert_to_tensor(values)
    out_mask = get_keras_mask(values)
    if out_mask is not None:
        mask = out_mask if mask is None else mask & out_mask
    total = keras_loss.reduce_weighted_values(
        values, sample_weight=sample_weight, mask=mask, reduction="sum", dtype=loss.dtype
    )
    if values.shape.rank == 0:
        return total, (), True
    return total, _counts(loss, values, mask, sample_weight), False


def _counts(loss, values, mask, sample_weight):
    if loss.reduction == "mean_with_sample_weight" and not (mask is None and sample_weight is None):
        weights = keras_loss.apply_mask(
            sample_weight if sample_weight is None else tf.cast(sample_weight, values.dtype),
            mask if mask is None else tf.cast(mask, values.dtype),
            dtype=values.dtype,
            reduction="sum",
        )
        return (tf.reduce_sum(weights),)
    if mask is None:
        return (tf.size(values),)
    return (tf.size(values), tf.math.count_nonzero(mask, dtype=tf.int32), tf.size(mask))


def _divisor(counts):
    """Number of values, of them the share that the mask lets through; at least a tiny number."""
    divisor = counts[0]
    if len(counts) == 3:
        divisor = divisor * counts[1] / tf.maximum(counts[2], 1.0)
    # As in Keras, 0 / 0 is 0.
    return tf.where(divisor == 0, tf.ones_like(divisor), divisor)


def compile_loss_across(model, loss, loss_weights):
    """Gives a compiled model a loss that counts over replicas.

    Args:
        model: compiled `keras.Model`.
        loss: what `compile` was given.
        loss_weights: what `compile` was given.
    """
    if loss is not None:
        names = getattr(model, "output_names", None)
        model._compile_loss = ReplicaCompileLoss(loss, loss_weights, output_names=names)


def call_model(model, x, *, training):
    """Calls a model as Keras' own steps do.

    Args:
        model: `keras.Model`.
        x: its inputs.
        training: bool.

    Returns:
        Its outputs.
    """
    return model(x, training=training) if model._call_has_training_arg else model(x)


def compute_loss(model, x, y, y_pred, sample_weight, *, training):
    """The compiled loss, also of models whose `compute_loss` does not take `training`.

    Args:
        model: compiled `keras.Model`.
        x: inputs.
        y: targets.
        y_pred: outputs.
        sample_weight: weights or None.
        training: bool.

    Returns:
        Scalar, or a vector for the reduction `none`.
    """
    return model._compute_loss(
        x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training
    )


def all_layers(model):
    """The model and all layers below it.

    Args:
        model: `keras.Model`.

    Returns:
        list of Keras layers.
    """
    return model._flatten_layers()


def build_from(model, specs):
    """Makes all variables of a compiled model from a batch's shapes alone.

    Args:
        model: compiled `keras.Model`, in whose strategy's scope this is called.
        specs: structure of `tf.TensorSpec` (or tensors) of a batch.
    """
    model._symbolic_build(data_batch=without_optionals(specs))


def without_optionals(data):
    """A batch with None where Keras put an empty `tf.experimental.Optional`.

    Args:
        data: structure of tensors or specs.

    Returns:
        The same structure.
    """
    empty = (tf.experimental.Optional, tf.OptionalSpec)
    return keras.tree.map_structure(lambda v: None if isinstance(v, empty) else v, data)


def loss_tracker(model):
    """The metric behind `logs["loss"]` of a compiled model."""
    return model._loss_tracker


def inner_optimizer(optimizer):
    """The optimizer that updates weights, within a `LossScaleOptimizer` or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def optimizer_strategy(optimizer):
    """The strategy under which an optimizer was made."""
    return inner_optimizer(optimizer)._distribution_strategy


def keep_shards(optimizer):
    """Makes an optimizer keep its moments of sharded variables in the same shards.

    Args:
        optimizer: Keras optimizer that has not made its variables yet, or was given before.

    Raises:
        ValueError: it has made its variables.
    """
    inner = inner_optimizer(optimizer)
    if "_circle_tf_shards" in inner.__dict__:
        return
    if inner.built:
        raise ValueError(
            "The optimizer has made its variables before compile, without knowing of the shards of "
            "CircleHead. Give compile a new optimizer."
        )
    plain = inner.add_variable_from_reference

    def add(reference_variable, name=None, initializer="zeros"):
        if not sharded_variable.is_sharded(reference_variable):
            return plain(reference_variable, name=name, initializer=initializer)
        with reference_variable.seen_as_part():
            moment = plain(reference_variable, name=name, initializer=initializer)
        return sharded_variable.shard(moment, whole_rows=reference_variable.whole_rows)

    inner.__dict__["add_variable_from_reference"] = add
    inner.__dict__["_circle_tf_shards"] = True


@contextlib.contextmanager
def already_reduced(optimizer):
    """Within it, the optimizer takes gradients as they are: they were summed over replicas.

    Args:
        optimizer: Keras optimizer, `LossScaleOptimizer` or not.

    Yields:
        None.
    """
    target = inner_optimizer(optimizer).__dict__
    # Replicas trace in turns, in threads that wait for each other inside: count them.
    target["_circle_tf_users"] = target.get("_circle_tf_users", 0) + 1
    target["_all_reduce_sum_gradients"] = list
    try:
        yield
    finally:
        target["_circle_tf_users"] -= 1
        if not target["_circle_tf_users"]:
            del target["_all_reduce_sum_gradients"], target["_circle_tf_users"]


def batch_signature(epoch_iterator):
    """Specs of one replica's batch, without taking a batch from the data.

    Args:
        epoch_iterator: Keras' `TFEpochIterator`.

    Returns:
        Structure of `tf.TensorSpec`.
    """
    spec = epoch_iterator._distributed_dataset.element_spec
    return tf.nest.map_structure(_one_spec, spec)


def _one_spec(spec):
    parts = getattr(spec, "_value_specs", None)
    return parts[0] if parts else spec


def masks_of(outputs):
    """Keras masks of a structure of tensors, flat, None where there is none."""
    return [get_keras_mask(value) for value in tf.nest.flatten(outputs)]


def copy_masks(outputs, masks):
    """Sets the masks that `masks_of` gave (they are lost where a tf.function returns)."""
    for value, mask in zip(tf.nest.flatten(outputs), masks, strict=True):
        if mask is not None:
            set_keras_mask(value, mask)


def _try_hooks():
    """Each hook once, on one device; AssertionError or any other error where it is gone."""
    optimizer = keras.optimizers.SGD(1.0)
    assert callable(optimizer._all_reduce_sum_gradients)
    seen = []
    variable = keras.Variable([1.0])
    optimizer.build([variable])
    with already_reduced(optimizer):
        optimizer.__dict__["_all_reduce_sum_gradients"] = lambda pairs: seen.append(1) or pairs
        optimizer.apply([tf.constant([0.5])], [variable])
    assert seen and variable.numpy()[0] == 0.5, "an optimizer step no longer reduces by itself"
    assert optimizer_strategy(optimizer) is not None
    _try_scope()
    _try_loss()


def _try_scope():
    layer = keras.layers.Dropout(0.5, seed=1)
    layer.build((None, 4))
    activity = keras.layers.ActivityRegularization(1.0)
    before = [variable.numpy() for variable in layer.variables]
    with RecordingScope(shift=1) as scope:
        layer(tf.ones([1, 4]), training=True)
        activity(tf.ones([1, 4]))
    variables, values = scope.updates()
    assert len(variables) == 1 and _is_seed(variables[0]), "seeds are kept elsewhere"
    assert [float(loss) for loss in scope.losses] == [4.0], "layers add losses elsewhere"
    assert (values[0].numpy() - before[0]).tolist() == [0, 1], "seeds advance otherwise"


def _try_loss():
    loss = keras.losses.MeanSquaredError()
    compiled = ReplicaCompileLoss(loss)
    y_true, y_pred, weights = tf.zeros([3, 2]), tf.ones([3, 2]) * 2, tf.constant([1.0, 2.0, 0.0])
    value = compiled(y_true, y_pred, weights)
    assert isinstance(compiled._flat_losses[0].loss, _ShareOfLoss), "losses are kept elsewhere"
    assert abs(float(value) - float(loss(y_true, y_pred, weights))) < 1e-6, "another reduction"


try:
    # In a thread of its own, where no strategy's scope and no graph of the importer's holds.
    concurrent.futures.ThreadPoolExecutor(1).submit(_try_hooks).result()
except Exception as error:
    raise ImportError(
        f"circle_tf.EmbeddingModel trains over several replicas by private parts of Keras, tested "
        f"with Keras {TESTED_KERAS}.x; Keras {keras.__version__} behaves otherwise: {error!r}. "
        f"Install keras=={TESTED_KERAS}.*, or train on one device."
    ) from error
