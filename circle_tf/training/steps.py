"""One step of training, evaluation or prediction on one of several replicas, and Keras' loop.

The order that makes replicas equal to one device: forward and loss of the own rows against all,
gradients, ONE exchange (sum of gradients, loss, statistics, metrics), and only then unscaling, the
check for inf, clipping and the update, which are thereby the same everywhere.
"""

import contextlib

import keras
import tensorflow as tf

from circle_tf.distribute import collectives, step_context
from circle_tf.training import (
    all_rows,
    cached_gradients,
    forward_pass,
    keras_private,
    replica_metrics,
    sharded_gradients,
)
from circle_tf.utils import checks

__all__ = ["Accumulator", "evaluation_step", "make_function", "predict_step", "train_step"]


def train_step(model, data, *, compiled, accumulator=None, cached_batch=None):
    """One training step of one replica.

    Args:
        model: compiled `EmbeddingModel`.
        data: this replica's part of the batch, as Keras packs it.
        compiled: whether XLA compiles the forward pass and the loss.
        accumulator: None, or the `Accumulator` of micro-batches.
        cached_batch: None, or the number of rows of which activations are held at a time.

    Returns:
        dict of logs, those of the global batch.
    """
    x, y, weights = _unpack(data)
    variables = model.trainable_variables
    with step_context.entered(compiled=compiled, memo={}, sample_weight=weights):

        def loss_of(passed):
            loss = _share_of_loss(model, x, y, weights, passed, training=True)
            return loss, model.optimizer.scale_loss(loss)

        if cached_batch is not None:
            passed, loss, gradients = cached_gradients.gradients(
                model, x, loss_of, size=cached_batch, compiled=compiled
            )
        else:
            with tf.GradientTape() as tape:
                passed = forward_pass.forward(model, x, training=True, compiled=compiled)
                loss, scaled = loss_of(passed)
            gradients = tape.gradient(scaled, [variable.value for variable in variables])
        gradients, logs = _reduced(model, (x, y, weights), passed, loss, gradients)
    if accumulator is not None:
        accumulator.add(gradients, model.optimizer, variables)
    else:
        model.optimizer.apply(gradients, variables)
    return logs


def evaluation_step(model, data, *, compiled):
    """One evaluation step of one replica.

    Args:
        model: compiled `EmbeddingModel`.
        data: this replica's part of the batch, as Keras packs it.
        compiled: whether XLA compiles the forward pass and the loss.

    Returns:
        dict of logs, those of the global batch.
    """
    x, y, weights = _unpack(data)
    with step_context.entered(compiled=compiled, memo={}, sample_weight=weights):
        passed = forward_pass.forward(model, x, training=False, compiled=compiled)
        loss = _share_of_loss(model, x, y, weights, passed, training=False)
        return _reduced(model, (x, y, weights), passed, loss, [])[1]


def predict_step(model, data, *, compiled):
    """The outputs for one replica's part of a batch.

    Args:
        model: `EmbeddingModel`.
        data: this replica's part of the batch, as Keras packs it.
        compiled: whether XLA compiles the forward pass.

    Returns:
        Structure of tensors, outputs for the own rows.
    """
    return forward_pass.forward(model, _unpack(data)[0], training=False, compiled=compiled).outputs


def _unpack(data):
    return keras.utils.unpack_x_y_sample_weight(keras_private.without_optionals(data))


def _share_of_loss(model, x, y, weights, passed, *, training):
    outputs = passed.outputs
    with contextlib.ExitStack() as stack:
        stack.enter_context(step_context.entered(layer_losses=passed.losses))
        if model.has_own_loss:
            x, y, outputs, weights = all_rows.gathered((x, y, outputs, weights))
            stack.enter_context(all_rows.seen_whole())
        loss = keras_private.compute_loss(model, x, y, outputs, weights, training=training)
    return loss / collectives.num_replicas() if model.has_own_loss else loss


def _reduced(model, batch, passed, loss, gradients):
    """Exchanges what the replicas have to share; returns `(summed gradients, global logs)`."""
    x, y, weights = batch
    variables = model.trainable_variables if gradients else []
    own = gradients
    rows = tf.cast(tf.shape(tf.nest.flatten(x)[0])[0], tf.float32)
    metrics = replica_metrics.variables(model)
    updates, changes = _changes(passed, rows, metrics)
    local_logs, known = replica_metrics.update(model, x, y, passed.outputs, weights)
    metrics = [v for v in metrics if not any(v is variable for variable, _ in known)]
    states = [tf.convert_to_tensor(variable.value) for variable in metrics]
    facts = sharded_gradients.facts(own, variables)
    shared = sharded_gradients.shared(own, variables)
    parts = (shared, facts, [tf.reduce_sum(loss), rows], changes, states)
    gradients, facts, (total, row_count), changes, states = _sum_parts(parts)
    gradients = sharded_gradients.agreed(own, gradients, facts, model.optimizer)
    _write_changes(updates, changes, row_count)
    # A vector (reduction "none") is reported as its mean.
    value = total if loss.shape.rank == 0 else total / row_count
    parts = collectives.num_replicas()
    tracker = keras_private.loss_tracker(model)
    tracker.update_state(value, sample_weight=row_count / parts)
    # Every replica has added the same to the loss tracker: the sum over replicas needs no exchange.
    states = [*zip(metrics, states, strict=True), *known]
    states += [(variable, variable.value * parts) for variable in tracker.variables]
    with keras.StatelessScope(state_mapping=states):
        return gradients, {**local_logs, **model.get_metrics_result()}


def _sum_parts(parts):
    flat = collectives.all_reduce_sums([value for part in parts for value in part])
    summed = iter(flat)
    return [[next(summed) for _ in part] for part in parts]


def _changes(passed, rows, metrics):
    """What the forward pass changes, to be summed; what is the replica's own affair is written.

    Exchanged are changes, not values: a statistic that did not change stays the same to the bit.

    Returns:
        `(updates, changes)`: triples (variable, value, change) and the changes alone, those of
        floats times the own rows.
    """
    counted = {id(variable) for variable in metrics}
    updates = []
    for variable, value in zip(passed.variables, passed.values, strict=True):
        if id(variable) in counted or getattr(variable, "same_on_replicas", False):
            variable.assign(value)
            continue
        floating = tf.as_dtype(variable.dtype).is_floating
        kind = tf.float32 if floating else tf.int64
        change = tf.cast(tf.cast(value, kind) - tf.cast(variable.value, kind), tf.float32)
        if floating:
            # Statistics of no rows are NaN.
            change = tf.where(rows > 0, change * rows, tf.zeros_like(change))
        updates.append((variable, value, change))
    return updates, [change for _, _, change in updates]


def _write_changes(updates, sums, row_count):
    """Writes the mean over rows of changes of floats; other values where they are all the same."""
    replicas = float(collectives.num_replicas())
    for (variable, value, change), total in zip(updates, sums, strict=True):
        if tf.as_dtype(variable.dtype).is_floating:
            variable.assign(variable.value + tf.cast(total / row_count, variable.dtype))
            continue
        message = (
            f"The layer weight {variable.path!r} is of {variable.dtype} and changes otherwise on "
            "each replica, by what it sees of the batch: there is no mean of it. Count what is the "
            "same everywhere (steps), or keep a float, which is averaged over rows; changes found:"
        )
        alike = tf.reduce_all(tf.equal(change * replicas, total))
        variable.assign(checks.passing(value, alike, message, change))


class Accumulator:
    """Sums of gradients over k micro-batches; their mean is applied at each k-th.

    Gradients are exchanged at each micro-batch, so that the sums are the same on all replicas: a
    checkpoint needs only one of them.

    Args:
        variables: all variables that are ever trained.
        steps: int k.
    """

    def __init__(self, variables, steps):
        self.steps = steps
        self._places = {id(variable): place for place, variable in enumerate(variables)}
        self.counter = tf.Variable(0, trainable=False, dtype=tf.int64, name="micro_batches")
        self.sums = [
            tf.Variable(tf.zeros_like(variable.value), trainable=False, name="sum")
            for variable in variables
        ]

    @property
    def variables(self):
        """The state: the counter, then one sum for each of the variables."""
        return [self.counter, *self.sums]

    def add(self, gradients, optimizer, variables):
        """Adds gradients that were summed over replicas; applies the mean at each k-th call.

        Args:
            gradients: list of tensors, None where there is no gradient.
            optimizer: Keras optimizer.
            variables: those that are trained at present, the same in all of the k calls.
        """
        sums = [self.sums[self._places[id(variable)]] for variable in variables]
        for total, gradient in zip(sums, gradients, strict=True):
            if gradient is not None:
                total.assign_add(cached_gradients.dense(gradient))
        self.counter.assign_add(1)
        known = [gradient is not None for gradient in gradients]

        def apply():
            mean = [
                total / self.steps if there else None
                for total, there in zip(sums, known, strict=True)
            ]
            optimizer.apply(mean, variables)
            for total in sums:
                total.assign(tf.zeros_like(total))

        # A condition around an update has to stand outside the replicas.
        tf.distribute.get_replica_context().merge_call(_at_each(self.counter, self.steps, apply))


def _at_each(counter, steps, apply):
    def merged(strategy):
        def now():
            strategy.extended.call_for_each_replica(apply)
            return tf.constant(True)

        tf.cond(tf.equal(counter % steps, 0), now, lambda: tf.constant(False))

    return merged


def make_function(model, step):
    """What Keras' loops call: a step, or several, on the next of an iterator's batches.

    Args:
        model: compiled `EmbeddingModel`.
        step: function of one replica's data that returns a dict of logs.

    Returns:
        Function of an iterator that returns logs, and raises `StopIteration` or
        `tf.errors.OutOfRangeError` at its end.
    """
    strategy = model.distribute_strategy
    maybe_graph = (lambda f, **_: f) if model.run_eagerly else tf.function

    def one_step(data):
        logs = strategy.run(step, args=(data,))
        # Logs are the same on all replicas.
        return {key: strategy.experimental_local_results(v)[0] for key, v in logs.items()}

    @_with_options(maybe_graph)
    def on_next(iterator):
        return one_step(iterator.get_next())

    @_with_options(maybe_graph, reduce_retracing=True)
    def on_batches(batches):
        return [one_step(data) for data in batches][-1]

    def function(iterator):
        if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
            return on_batches([_spread(strategy, next(iterator))])
        if model.steps_per_execution == 1:
            return on_next(iterator)
        return on_batches(_take(iterator, model.steps_per_execution))

    return function


def _with_options(decorate, **options):
    return lambda function: decorate(tf.autograph.experimental.do_not_convert(function), **options)


def _take(iterator, count):
    """The next batches; fewer at the end of the data, at least one."""
    batches = [next(iterator)]
    with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
        while len(batches) < count:
            batches.append(next(iterator))
    return batches


def _spread(strategy, data):
    """Splits a whole batch (of `train_on_batch`) over the replicas, every row on one of them."""
    count = strategy.num_replicas_in_sync

    def spread(value):
        if value is None:
            return None
        rows = tf.convert_to_tensor(value)
        ends = [len(rows) * index // count for index in range(count + 1)]

        def part(context):
            index = context.replica_id_in_sync_group
            return rows[ends[index] : ends[index + 1]]

        return strategy.experimental_distribute_values_from_function(part)

    return keras.tree.map_structure(spread, data)
