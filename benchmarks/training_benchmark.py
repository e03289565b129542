"""Images a second of the trainer, everything on, beside the same net in a bare PyTorch loop.

    python -m benchmarks.training_benchmark

The trainer is `python -m trainers.train` on configs/glyphs.py as it stands: input pipeline, loss,
five metrics, evaluation, log, TensorBoard, checkpoints. At the end of each epoch it waits while the
peers (`make bench-peers`) take their turn with the same images and batches. The loop in PyTorch
with pytorch-metric-learning's CircleLoss only trains (benchmarks/training_peers.py). `--profile`
writes where the time of some steps goes, for TensorBoard's profiler.
"""

import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import peers, timing
from circle_tf.data.sampler import PKSampler
from configs import glyphs
from trainers import datasets
from trainers.training import loop

_ROUNDS = flags.DEFINE_integer("rounds", 4, "Epochs that count, after one.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of an epoch of ours.", lower_bound=2)
_PEER_STEPS = flags.DEFINE_integer("peer_steps", 40, "Steps of a peer's turn.", lower_bound=1)
_PROFILE = flags.DEFINE_string("profile", None, "Folder for a profile of the last epoch's steps.")
_PEERS = {
    "PyTorch": {"channels_last": False},
    "PyTorch, channels_last": {"channels_last": True},
}
_ALONE, _ALL = "trainer, steps alone", "trainer, with evaluation, log and checkpoints"


class _Done(Exception):
    """Enough was measured."""


class Turns(keras.callbacks.Callback):
    """Times a run's epochs and gives the peers their turn between them.

    Args:
        timers: by name, functions that return seconds of a step.
        rounds: epochs that count, after one that does not.
    """

    def __init__(self, timers, *, rounds):
        super().__init__()
        self.times = {name: [] for name in (_ALONE, _ALL, *timers)}
        self._timers, self._rounds = timers, rounds

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        self._resumed = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock of the steps, and the profiler."""
        if _PROFILE.value and epoch == self._rounds:
            tf.profiler.experimental.start(_PROFILE.value)
        self._began, self._count = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        """Notes the time of the step that may be the last."""
        self._trained = time.perf_counter()
        self._count += 1

    def on_epoch_end(self, epoch, logs=None):
        """Takes the times and lets the peers run."""
        whole = time.perf_counter() - self._resumed
        seconds = {_ALONE: (self._trained - self._began) / self._count, _ALL: whole / self._count}
        seconds |= {name: timer() for name, timer in self._timers.items()}
        if epoch:
            for name, value in seconds.items():
                self.times[name].append(value)
        if epoch == self._rounds:
            if _PROFILE.value:
                tf.profiler.experimental.stop()
            raise _Done
        self._resumed = time.perf_counter()


def recipe():
    """configs/glyphs.py, as long as it takes."""
    config = glyphs.get_config()
    config.eval_every = _STEPS.value
    config.steps = (_ROUNDS.value + 1) * _STEPS.value
    return config


def peer_inputs(config):
    """Images, labels, and the rows of each step's batch: those that the trainer takes."""
    split = datasets.load(config.dataset).train
    sampler = PKSampler(split.labels, seed=config.seed, **config.batch)
    rows = np.stack([sampler(step) for step in range(config.steps)])
    return {"images": split.images(), "labels": np.asarray(split.labels), "rows": rows}


def main(_):
    """Prints one table."""
    config = recipe()
    batch = config.batch.classes_per_batch * config.batch.examples_per_class
    count = _PEER_STEPS.value
    with peers.Peer("benchmarks.training_peers", inputs=peer_inputs(config)) as peer:
        turns = {name: peer.timer("seconds", steps=count, **how) for name, how in _PEERS.items()}
        timers = {name: lambda t=timer: t() / count for name, timer in turns.items()}
        measured = Turns(timers, rounds=_ROUNDS.value)
        with tempfile.TemporaryDirectory() as folder:
            try:
                loop.train(config, workdir=folder, callbacks=[measured])
            except _Done:
                pass
    times = {name: np.array(values) for name, values in measured.times.items()}
    timing.print_table(
        ["way", "ms a step", "images a second", *(f"ratio to {name}" for name in _PEERS)],
        [
            [
                name,
                float(1000 * np.median(seconds)),
                float(batch / np.median(seconds)),
                *(timing.ratio(times[peer], seconds) for peer in _PEERS),
            ]
            for name, seconds in times.items()
        ],
    )


if __name__ == "__main__":
    app.run(main)
