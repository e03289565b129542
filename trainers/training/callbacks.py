"""Keras callbacks of a run: checkpoints, metrics.jsonl, TensorBoard scalars, progress."""

import sys
import time

import keras
import tensorflow as tf

from circle_tf.losses import hyperparameters
from circle_tf.optimizers import averages
from circle_tf.utils import shares
from trainers.distributed import preemption
from trainers.training import finite

__all__ = [
    "BestKeeper",
    "Checkpointer",
    "Divergence",
    "Exchange",
    "Progress",
    "Recorder",
    "StepCallback",
]

# The metrics worth a look while training, and what to call them; metrics.jsonl holds all.
_SHOWN = {
    "loss": "loss",
    "s_p": "s_p",
    "s_n": "s_n",
    "accuracy": "accuracy",
    "val_recall_at_1": "recall@1",
    "val_mean_average_precision_at_r": "MAP@R",
}


class StepCallback(keras.callbacks.Callback):
    """A callback that knows the run's step, also when an epoch is resumed in its middle.

    Args:
        step: int, steps done before `fit`.
        steps: int, length of the run.
    """

    def __init__(self, *, step, steps):
        super().__init__()
        self.step, self.steps = step, steps

    def on_train_batch_end(self, batch, logs=None):
        """Counts the step."""
        self.step += 1


class Divergence(StepCallback):
    """Stops at the first loss that is NaN or inf, and at such a state when an epoch ends.

    Put it first: nothing is then evaluated, logged or saved of a training that has diverged.

    Args:
        check_state: trainers.training.finite.StateCheck.
        step: int, steps done before `fit`.
        steps: int, length of the run.

    Raises:
        trainers.training.finite.NotFinite: by `fit`, on all workers after the same step.
    """

    def __init__(self, check_state, *, step, steps):
        super().__init__(step=step, steps=steps)
        self._check_state = check_state

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the loss."""
        super().on_train_batch_end(batch, logs)
        finite.check_loss(logs["loss"], step=self.step)

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the state."""
        self._check_state(step=self.step)


class Checkpointer(StepCallback):
    """Saves a checkpoint every so many steps, and at the end. Put it last.

    A step that ends an epoch is saved after the other callbacks have seen the epoch's end: a
    checkpoint then never claims an evaluation that is not in the log.

    Args:
        checkpoints: trainers.training.checkpoints.Checkpoints, restored.
        every: int, steps between checkpoints.
        step: int, steps done before `fit`.
        steps: int, length of the run.
        epoch_steps: int, steps of an epoch.
        must_stop: `fn(step) -> bool`, asked after each step: whether to save and stop now.

    Raises:
        trainers.distributed.preemption.Preempted: by `fit`, when told to stop; saved.
    """

    def __init__(self, checkpoints, *, every, step, steps, epoch_steps, must_stop=None):
        super().__init__(step=step, steps=steps)
        self._checkpoints, self._every, self._epoch_steps = checkpoints, every, epoch_steps
        self._must_stop, self._stopping = must_stop or (lambda step: False), False

    def on_epoch_begin(self, epoch, logs=None):
        """Gives the metrics of a broken epoch back what they had summed up."""
        if self.step % self._epoch_steps:
            self._checkpoints.restore_metrics()

    def on_train_batch_end(self, batch, logs=None):
        """Saves within epochs."""
        super().on_train_batch_end(batch, logs)
        self._stopping = self._must_stop(self.step)
        if self.step % self._epoch_steps and self.step != self.steps:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Saves at the end of an epoch."""
        self._save()

    def _save(self):
        if self._stopping or self.step % self._every == 0 or self.step == self.steps:
            self._checkpoints.save(self.step)
        if self._stopping and self.step != self.steps:
            raise preemption.Preempted(self.step)


class Exchange(keras.callbacks.Callback):
    """Exchanges weights and averages where an epoch ends.

    Put it before what evaluates and keeps the averages, and once more after it: what trains, and
    what a checkpoint restores, are the weights.
    """

    def on_epoch_end(self, epoch, logs=None):
        """Exchanges them."""
        averages.exchange(self.model.optimizer)


class Recorder(StepCallback):
    """Writes each epoch's metrics, rates and growing gammas to metrics.jsonl and TensorBoard.

    Args:
        log: trainers.outputs.workdir.MetricsLog.
        directory: of TensorBoard's events.
        step: int, steps done before `fit`.
        steps: int, length of the run.
    """

    def __init__(self, log, directory, *, step, steps):
        super().__init__(step=step, steps=steps)
        self._log, self._directory = log, directory

    def on_train_begin(self, logs=None):
        """Opens TensorBoard's file."""
        self._writer = tf.summary.create_file_writer(self._directory)

    def on_train_end(self, logs=None):
        """Closes it."""
        self._writer.close()

    def on_epoch_end(self, epoch, logs=None):
        """Writes one line and its scalars."""
        record = {"step": self.step, "learning_rate": self._learning_rate()}
        record |= hyperparameters.scheduled_values(self.model)
        record |= {name: float(value) for name, value in (logs or {}).items()}
        self._log.append(record)
        with self._writer.as_default(self.step):
            for name, value in record.items():
                tf.summary.scalar(name, value)
        self._writer.flush()

    def _learning_rate(self):
        return float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class BestKeeper(StepCallback):
    """Offers the model of each epoch to be kept as the best. Put it after metrics.

    Args:
        best: trainers.outputs.best.BestModel.
        embedding: the embedding model.
        step: int, steps done before `fit`.
        steps: int, length of the run.
    """

    def __init__(self, best, embedding, *, step, steps):
        super().__init__(step=step, steps=steps)
        self._best, self._embedding = best, embedding

    def on_epoch_end(self, epoch, logs=None):
        """Offers it."""
        metrics = {name: float(value) for name, value in (logs or {}).items()}
        self._best.offer(self._embedding, step=self.step, metrics=metrics)


class Progress(StepCallback):
    """A bar that moves on a terminal; elsewhere one line per epoch. Put it after metrics.

    Args:
        step: int, steps done before `fit`.
        steps: int, length of the run.
        stream: where to print; default: stdout.
    """

    def __init__(self, *, step, steps, stream=None):
        super().__init__(step=step, steps=steps)
        self._stream, self._bar = stream or sys.stdout, None

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock and the bar."""
        self._began, self._first = time.monotonic(), self.step
        if self._stream.isatty():
            self._bar = _bar(target=self.steps, start=self.step, stream=self._stream)

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar."""
        super().on_train_batch_end(batch, logs)
        self._trained = time.monotonic()
        if self._bar is not None:
            self._bar.set_description_str(_in_words(logs), refresh=False)
            self._bar.update(1)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's metrics on a line of their own."""
        if self._bar is not None:
            self._bar.close()
        pace = (self._trained - self._began) / (self.step - self._first)
        step = f"step {self.step:{len(str(self.steps))}}/{self.steps}"
        line = f"{step}  {_in_words(logs)}  {1000 * pace:.0f} ms/step"
        print(line, file=self._stream, flush=True)


def _in_words(logs):
    shown = {_SHOWN[name]: logs[name] for name in _SHOWN if name in logs}
    return "  ".join(
        f"{name} {shares.as_text(float(value), '.3f')}" for name, value in shown.items()
    )


def _bar(*, target, start, stream):
    import tqdm

    form = "{percentage:3.0f}% |{bar:20}| {n}/{total}  {remaining} left  {desc}"
    return tqdm.tqdm(
        total=target, initial=start, leave=False, file=stream, bar_format=form, dynamic_ncols=True
    )
