"""Checkpoints of a training run: everything that a resumed run needs to go on as if uninterrupted.

The position in the data is the step itself: batches are pure functions of (seed, step).
"""

import tensorflow as tf

__all__ = ["Checkpoints"]


class Checkpoints:
    """Saves and restores a compiled model, its optimizer, its metrics and the step.

    Held are raw tf.Variables: weights, moving statistics and seeds of the model; moments, counters
    and the dynamic loss scale of the optimizer; running sums of the metrics. Files are written
    aside and renamed by TensorFlow: a kill while saving leaves the checkpoint before.

    Args:
        directory: where to keep them.
        model: compiled keras.Model.
        keep: int, how many of the newest to keep.
    """

    def __init__(self, directory, model, *, keep):
        self._model = model
        _make_variables(model)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._state = tf.train.Checkpoint(
            step=self._step,
            model=_raw(model.variables),
            optimizer=_raw(model.optimizer.variables),
            metrics=_raw(model.metrics_variables),
        )
        self._manager = tf.train.CheckpointManager(self._state, directory, max_to_keep=keep)
        self._restored_metrics = None

    def restore(self):
        """Restores the newest checkpoint, if there is one.

        Returns:
            int, the step to go on from; 0 without a checkpoint.
        """
        path = self._manager.latest_checkpoint
        if path is None:
            return 0
        self._state.restore(path).assert_consumed()
        self._restored_metrics = [variable.numpy() for variable in self._model.metrics_variables]
        return int(self._step.numpy())

    def restore_metrics(self):
        """Gives the metrics what `restore` found, once: `fit` resets them when an epoch begins."""
        values, self._restored_metrics = self._restored_metrics, None
        for variable, value in zip(self._model.metrics_variables, values or [], strict=False):
            variable.assign(value)

    def save(self, step):
        """Saves the state after `step` steps.

        Args:
            step: int.
        """
        self._step.assign(step)
        self._manager.save(checkpoint_number=step)


def _make_variables(model):
    """Makes what Keras would make in the first step, so that it can be restored before."""
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(
        x=None, y=tf.zeros([2], tf.int64), y_pred=tf.zeros([2, model.output_shape[-1]])
    )
    model.reset_metrics()


def _raw(variables):
    """The tf.Variables under Keras' variables, which tf.train.Checkpoint does not take."""
    return [variable.value for variable in variables]
