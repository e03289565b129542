"""Metrics over replicas: states that add up over rows, and metrics that have to see all rows."""

import keras
import tensorflow as tf

from circle_tf.distribute import collectives
from circle_tf.training import all_rows, keras_private, replica_loss

__all__ = ["update", "variables"]


def variables(model):
    """Variables of all metrics whose replicas' values add up, but the loss tracker's.

    Args:
        model: compiled `EmbeddingModel`.

    Returns:
        list of Keras variables.
    """
    own = {id(variable) for variable in keras_private.loss_tracker(model).variables}
    found = [variable for metric in model.metrics for variable in metric.variables]
    return [v for v in found if id(v) not in own and v.aggregation == "sum"]


def update(model, x, y, outputs, weights):
    """Updates the metrics by this replica's rows, or by all rows where a state may not add up.

    Known to add up are the metrics of Keras and of `circle_tf`, in Keras' own `compute_metrics`.

    Args:
        model: compiled `EmbeddingModel`.
        x: inputs of this replica's rows.
        y: targets, None or a structure.
        outputs: structure of outputs.
        weights: None or sample weights.

    Returns:
        `(logs, states)`: what `compute_metrics` returned; pairs (variable, value), the states of
        the global batch that are known already.
    """
    overridden = type(model).compute_metrics is not keras.Model.compute_metrics
    metrics = _updated_by_compute_metrics(model)
    if not overridden and all(map(_adds_up, metrics)):
        return model.compute_metrics(x, y, outputs, sample_weight=weights), []
    held = [variable for metric in metrics for variable in metric.variables]
    before = [_whole_state(variable) for variable in held]
    # Keras' own has no use for the inputs, which may be large.
    x, y, outputs, weights = all_rows.gathered((x if overridden else None, y, outputs, weights))
    pairs = [*zip(held, before, strict=True)]
    with keras.StatelessScope(state_mapping=pairs) as scope, all_rows.seen_whole():
        logs = model.compute_metrics(x, y, outputs, sample_weight=weights)
        states = [(v, tf.convert_to_tensor(scope.get_current_value(v))) for v in held]
    for variable, value in states:
        variable.assign(_part_of_state(variable, value))
    return logs, states


def _updated_by_compute_metrics(model):
    """All metrics but the trackers of losses, a compiled list of metrics as its items."""
    trackers = [
        keras_private.loss_tracker(model),
        *(model._compile_loss.metrics if model._compile_loss else []),
    ]
    found = [one for one in model.metrics if not any(one is tracker for tracker in trackers)]
    return [item for one in found for item in getattr(one, "metrics", [one])]


def _adds_up(metric):
    if type(metric) is keras.metrics.MeanMetricWrapper:
        return replica_loss.is_per_example(metric._fn, metric._fn_kwargs)
    return type(metric).__module__.split(".")[0] in ("keras", "circle_tf")


# Read outside of the replicas such a variable is the sum of its copies: one of them has it all.
def _whole_state(variable):
    value = tf.convert_to_tensor(variable.value)
    return collectives.all_reduce_sums([value])[0] if variable.aggregation == "sum" else value


def _part_of_state(variable, value):
    context = collectives.replica_context()
    if context is None or variable.aggregation != "sum":
        return value
    return tf.where(context.replica_id_in_sync_group == 0, value, tf.zeros_like(value))
