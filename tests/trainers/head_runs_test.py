"""Runs of the class-level head from the command line: over replicas, sampled, stopped, resumed."""

import glob
import os
import signal
import time

import numpy as np
import pytest

from tests import processes
from trainers.distributed import preemption
from trainers.outputs import workdir as workdirs

# Processes that train: a quarter of a minute each, as each imports TensorFlow.
pytestmark = pytest.mark.slow

LOSS = ["--config.loss.margin=0.25", "--config.loss.gamma=32.0"]
HEAD = [*LOSS, "--config.loss.name=circle_head"]
SPREAD = [*HEAD, "--config.loss.shards=replicas"]
TWO = ["--config.strategy=mirrored", "--config.devices=2"]


def options(path, *more):
    return [
        "--config=configs/digits.py",
        f"--workdir={path}",
        "--config.steps=12",
        "--config.eval_every=6",
        "--config.checkpoint_every=2",
        *more,
    ]


def run(module, *flags):
    done = processes.run("-m", module, *flags)
    assert done.returncode == 0, done.stderr[-2000:]


def class_weights(path):
    with np.load(workdirs.Workdir(path).class_weights) as held:
        return held["class_weights"]


def logged(path):
    records = workdirs.MetricsLog(workdirs.Workdir(path).metrics).records()
    return [record["loss"] for record in records]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Classifier and loss on two devices; on one the net's batch statistics would be others."""
    path = str(tmp_path_factory.mktemp("runs") / "classifier")
    run("trainers.train", *options(path, *TWO, *LOSS, "--config.loss.name=class_circle"))
    return path


def assert_same_run(path, other):
    np.testing.assert_allclose(logged(path), logged(other), rtol=1e-4)
    np.testing.assert_allclose(class_weights(path), class_weights(other), atol=1e-4)


def test_classes_spread_over_two_devices(classifier, tmp_path):
    run("trainers.train", *options(tmp_path / "two", *SPREAD, *TWO))
    assert class_weights(tmp_path / "two").shape == (5, 32)  # Of digits 0 to 4; padded to 6.
    assert_same_run(str(tmp_path / "two"), classifier)


def test_classes_spread_over_two_workers_that_are_stopped(classifier, tmp_path):
    path = str(tmp_path / "workers")
    command = ["trainers.launch", "--workers=2", *options(path, *SPREAD)]
    with processes.started("-m", *command) as process:
        saved = os.path.join(path, "checkpoints", "*.index")
        while not glob.glob(saved) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == preemption.STATUS, process.stderr.read()[-2000:]
    run(*command)
    assert_same_run(path, classifier)


SAMPLED = [*HEAD, "--config.loss.sample_rate=0.4", "--config.batch.classes_per_batch=2"]
BESIDE = [*LOSS, *TWO, "--config.loss.class_level_weight=0.5", "--config.model.dropout=0.2"]


@pytest.mark.parametrize("flags", [SAMPLED, BESIDE], ids=["sampled", "beside pairs, dropout"])
def test_a_run_that_draws_goes_on_where_it_was(flags, tmp_path):
    run("trainers.train", *options(tmp_path / "whole", *flags))
    run("trainers.train", *options(tmp_path / "broken", *flags))
    files = workdirs.Workdir(str(tmp_path / "broken"))
    for path in (files.run, files.model, files.class_weights):
        os.remove(path)
    for path in glob.glob(os.path.join(files.checkpoints, "ckpt-*")):
        if not path.split("ckpt-")[1].startswith("8."):
            os.remove(path)
    run("trainers.train", *options(tmp_path / "broken", *flags))
    whole, broken = (class_weights(tmp_path / name) for name in ("whole", "broken"))
    np.testing.assert_array_equal(whole, broken)
