"""Runs that die once a checkpoint is saved, and what is compared of those that went on."""

import keras
import numpy as np
import pytest

from trainers.training import checkpoints, loop

__all__ = ["Killed", "assert_same", "killed_after", "stop_after", "weights"]


class Killed(BaseException):
    """Ends a training where a kill would, in the process of the test."""


def stop_after(context, step):
    """Makes runs die once the checkpoint of `step` is saved, within a monkeypatch's context."""
    save = checkpoints.Checkpoints.save

    def save_and_die(self, at):
        save(self, at)
        if at == step:
            raise Killed

    context.setattr(checkpoints.Checkpoints, "save", save_and_die)


def killed_after(step, monkeypatch, config, path):
    """Trains until the checkpoint of `step` is saved."""
    with monkeypatch.context() as context, pytest.raises(Killed):
        stop_after(context, step)
        loop.train(config, workdir=path)


def weights(files):
    """The arrays of a finished run's model, from its `Workdir`."""
    return keras.models.load_model(files.model).get_weights()


def assert_same(first, second):
    """Of two finished runs, `Workdir`s: the same weights to the bit, and the same log."""
    for one, other in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(one, other)
    with open(first.metrics) as one, open(second.metrics) as other:
        assert one.read() == other.read()
