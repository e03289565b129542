"""Checkpoints of a training run: everything that a resumed run needs to go on as if uninterrupted.

The position in the data is the step itself: batches are pure functions of (seed, step).
"""

import glob
import os
import re
import shutil
import tempfile
import warnings

import numpy as np
import tensorflow as tf

import circle_tf
from circle_tf.distribute import sharded_variable
from circle_tf.utils import errors
from circle_tf.utils.files import disk_errors, replacing
from trainers.cli import commands
from trainers.training import finite

__all__ = ["Checkpoints"]

_SPARE = ".writing-"  # folders in which checkpoints are written before they get their names


class Checkpoints:
    """Saves and restores a compiled model, its optimizer, its metrics and the step.

    Held are raw tf.Variables: weights, moving statistics and seeds of the model; the loss's
    cross-batch memory; sums of accumulated gradients; moments, counters and the dynamic loss scale
    of the optimizer; running sums of the metrics. Files are written aside and then renamed, the
    index last: a kill while saving leaves the checkpoint before. What is damaged all the same is
    found by TensorFlow's checksums when it is read, and passed over. A state with NaN or inf is
    neither written nor read.

    Args:
        directory: where to keep them.
        model: compiled keras.Model.
        keep: int, how many of the newest to keep.
        write: whether this process writes to `directory`. Under several workers each must save, as
            metrics are summed over replicas when they are saved; one of them writes, the others
            to a temporary place.
        others: tf.Variables that are none of the model's, to be saved and restored with it.

    Attributes:
        check: trainers.training.finite.StateCheck of the model.
    """

    def __init__(self, directory, model, *, keep, write=True, others=()):
        self._model, self._directory, self._keep, self._write = model, directory, keep, write
        _make_variables(model)
        self._step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
        self._state = tf.train.Checkpoint(
            step=self._step,
            model=_raw(model.variables),
            memory=_raw(_variables_of(model, "memory")),
            accumulator=_variables_of(model, "accumulator"),
            optimizer=_raw(model.optimizer.variables),
            metrics=_raw(model.metrics_variables),
            others=list(others),
        )
        self._restored_metrics = None
        self.check = finite.StateCheck(model)

    @property
    def step(self):
        """Step of the newest checkpoint that was restored or saved; 0 without one."""
        return int(self._step)

    def restore(self):
        """Restores the newest checkpoint that is whole and finite, if there is one.

        Returns:
            int, the step to go on from; 0 without a checkpoint.

        Warns:
            UserWarning: a newer checkpoint is damaged, or holds NaN or inf.

        Raises:
            commands.ConfigError: all that are whole hold NaN or inf.
        """
        if self._write:
            for spare in glob.glob(os.path.join(self._directory, f"{_SPARE}*")):
                shutil.rmtree(spare, ignore_errors=True)
        passed_over, diverged = {}, False
        for path in reversed(self._paths()):
            try:
                values = _read_all(path)
            # TensorFlow tells damage in all these ways.
            except (tf.errors.OpError, IndexError, ValueError, RuntimeError, OSError) as error:
                passed_over[path] = f"is damaged ({errors.reason(error)})"
                continue
            if _is_finite(values):
                _warn_of(passed_over, used=path)
                return self._restore(path, values)
            passed_over[path], diverged = "holds NaN or inf", True
        if diverged:
            raise commands.ConfigError(
                f"The training in {self._directory} has diverged: its checkpoints hold NaN or inf, "
                "and none can be gone on from. Train anew in another --workdir, with a lower "
                "optimizer.learning_rate."
            )
        _warn_of(passed_over, used=None)
        return 0

    def restore_metrics(self):
        """Gives the metrics what `restore` found, once: `fit` resets them when an epoch begins."""
        values, self._restored_metrics = self._restored_metrics, None
        for variable, value in zip(self._model.metrics_variables, values or [], strict=False):
            variable.assign(value)

    def save(self, step):
        """Saves the state after `step` steps.

        Args:
            step: int.

        Raises:
            trainers.training.finite.NotFinite: on all workers, for a state with NaN or inf; nothing
                is written.
            OSError: the disk is full, or nothing may be written there; older checkpoints are whole.
        """
        self.check(step=step)
        self._step.assign(step)
        if not self._write:
            with tempfile.TemporaryDirectory() as elsewhere:
                self._state.write(os.path.join(elsewhere, "ckpt"))
            return
        with disk_errors(self._directory):
            self._save_whole(step)
            self._forget_oldest(step)

    def _save_whole(self, step):
        os.makedirs(self._directory, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_SPARE, dir=self._directory) as spare:
            self._state.write(os.path.join(spare, f"ckpt-{step}"))
            # The data before the index, which makes it a checkpoint.
            for name in sorted(os.listdir(spare)):
                _sync(os.path.join(spare, name))
                os.replace(os.path.join(spare, name), os.path.join(self._directory, name))

    def _restore(self, path, values):
        self._state.read(path).assert_consumed()
        # From the file: workers that restore at different times must not exchange sums.
        names = [f"metrics/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in range(len(values))]
        self._restored_metrics = [values[name] for name in names if name in values]
        return int(values["step/.ATTRIBUTES/VARIABLE_VALUE"])

    def _paths(self):
        """Paths of the checkpoints, without suffix, oldest first."""
        found = glob.glob(os.path.join(glob.escape(self._directory), "ckpt-*.index"))
        paths = [path.removesuffix(".index") for path in found]
        return sorted((path for path in paths if re.search(r"ckpt-\d+$", path)), key=_step_of)

    def _forget_oldest(self, step):
        """Deletes all but the newest up to `step`; later ones were damaged and are of no use."""
        paths = self._paths()
        kept = [path for path in paths if _step_of(path) <= step][-self._keep :]
        _write_state(self._directory, [os.path.basename(path) for path in kept])
        for path in paths:
            if path not in kept:
                for file in [f"{path}.index", *glob.glob(f"{glob.escape(path)}.data-*")]:
                    os.remove(file)


def _write_state(directory, names):
    """Tells tf.train.latest_checkpoint and other tools; a run that resumes looks for itself."""
    lines = [f'model_checkpoint_path: "{names[-1]}"\n']
    lines += [f'all_model_checkpoint_paths: "{name}"\n' for name in names]
    with replacing(os.path.join(directory, "checkpoint")) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(lines)


def _step_of(path):
    return int(path.rpartition("-")[2])


def _read_all(path):
    """Every value of a checkpoint, compared with its checksum."""
    reader = tf.train.load_checkpoint(path)
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_dtype_map()}


def _is_finite(values):
    """Whether a checkpoint can be gone on from; sums of gradients may be inf under loss scaling."""
    state = [np.asarray(v) for name, v in values.items() if not name.startswith("accumulator/")]
    return all(np.isfinite(v).all() for v in state if np.issubdtype(v.dtype, np.floating))


def _warn_of(passed_over, *, used):
    for path, reason in passed_over.items():
        instead = f"{used} is used" if used else "there is no older one, training starts anew"
        warnings.warn(f"The checkpoint {path} {reason}; {instead}.", stacklevel=3)


def _sync(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _make_variables(model):
    """Makes what Keras would make in the first step, so that it can be restored before."""
    strategy = model.distribute_strategy
    if isinstance(model, circle_tf.EmbeddingModel):
        model.make_train_function()  # Makes the sums of gradient accumulation.
    if strategy.num_replicas_in_sync > 1:
        from circle_tf.training import (
            keras_private,  # Tries the hooks out: only where replicas train.
        )

        inputs = [tf.TensorSpec([2, *x.shape[1:]], x.dtype) for x in model.inputs]
        ids = tf.TensorSpec([2], tf.int64)
        inputs = inputs[0] if len(inputs) == 1 else tuple(inputs)
        specs = (inputs,) if model.loss is None else (inputs, ids)
        with strategy.scope():
            keras_private.build_from(model, specs)
            model.optimizer.build(model.trainable_variables)
        return
    model.optimizer.build(model.trainable_variables)
    if model.loss is None:  # A layer is the loss, and there are no metrics.
        return
    model.compute_metrics(
        x=None, y=tf.zeros([2], tf.int64), y_pred=tf.zeros([2, model.output_shape[-1]])
    )
    model.reset_metrics()


def _variables_of(model, part):
    """Those of what an EmbeddingModel may have."""
    found = getattr(model, part, None)
    return found.variables if found else []


def _raw(variables):
    """The tf.Variables under Keras' variables, which tf.train.Checkpoint does not take.

    Of variables whose rows are spread over replicas it takes the whole.
    """
    return [v if sharded_variable.is_sharded(v) else v.value for v in variables]
