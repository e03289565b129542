"""Runs of two workers, killed in every way, against one that was left alone."""

import contextlib
import glob
import os
import random
import shlex
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest

from tests import processes
from trainers import launch
from trainers.distributed import cluster, preemption
from trainers.outputs import workdir as workdirs


def options(path):
    return [
        "--config=configs/digits.py",
        f"--workdir={path}",
        "--config.steps=40",
        "--config.eval_every=20",
        "--config.checkpoint_every=3",
        "--config.precision=mixed_float16",
        "--config.batch.classes_per_batch=3",
        "--config.batch.examples_per_class=4",
    ]


def launcher(path):
    return ["-m", "trainers.launch", "--workers=2", *options(path)]


def steps_saved(path):
    names = glob.glob(os.path.join(path, "checkpoints", "ckpt-*.index"))
    return sorted(int(name.rpartition("-")[2].removesuffix(".index")) for name in names)


def wait_for_step(process, path, step):
    while not steps_saved(path) or steps_saved(path)[-1] < step:
        if process.poll() is not None:
            pytest.fail(f"The run ended before it could be stopped: {process.communicate()}")
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))


def children(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(child) for child in file.read().split()]


def weights(path):
    return keras.models.load_model(workdirs.Workdir(path).model).get_weights()


def assert_same_run(one, other):
    for left, right in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(left, right)
    # Sums of metrics are saved over replicas, which may round the last digit otherwise.
    logs = [workdirs.MetricsLog(workdirs.Workdir(path).metrics).records() for path in (one, other)]
    for left, right in zip(*logs, strict=True):
        assert left == pytest.approx(right, rel=1e-5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of two workers that was left alone."""
    path = str(tmp_path_factory.mktemp("runs") / "whole")
    done = processes.run(*launcher(path))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert all(line.startswith("[0] ") for line in lines)
    assert lines[-1].startswith("[0] Next: python -m trainers.evaluate")
    return path


# Slow: four launches of two workers, each of which imports TensorFlow.
@pytest.mark.slow
def test_killed_workers_end_bitwise_as_uninterrupted_ones(whole, tmp_path):
    path = str(tmp_path / "killed")
    # The chief, in the middle of writing a checkpoint.
    command = [sys.executable, "-c", processes.dies_writing(12), *options(path)]
    command += ["--config.strategy=multi_worker", "--config.devices=1"]
    assert launch.launch(command, workers=2) == 128 + signal.SIGKILL
    assert steps_saved(path)[-1] == 9
    assert os.path.exists(os.path.join(path, "checkpoints", "ckpt-12.data-00000-of-00001"))
    # The other worker, at some step.
    with processes.started(*launcher(path)) as process:
        wait_for_step(process, path, 15)
        os.kill(children(process)[1], signal.SIGKILL)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == 128 + signal.SIGKILL
    assert "Worker 1 ended with status 137" in errors and "Traceback" not in errors
    assert "start all workers again" in errors
    # Both are told to stop.
    with processes.started(*launcher(path)) as process:
        wait_for_step(process, path, 21)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=300)[1]
    assert process.returncode == preemption.STATUS and "which is saved" in errors
    assert errors.splitlines()[-1] == f"Go on: {shlex.join(['python', *launcher(path)])}"
    assert processes.run(*launcher(path)).returncode == 0
    assert_same_run(whole, path)


# Slow: two processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_workers_with_different_checkpoints_all_stop(whole, tmp_path):
    assert steps_saved(whole) == [36, 39, 40]
    addresses = [f"localhost:{port}" for port in launch.free_ports(2)]
    with contextlib.ExitStack() as running:
        workers = []
        for index, lost in enumerate(([40], [40, 39])):
            path = str(tmp_path / str(index))
            shutil.copytree(whole, path)
            os.remove(workdirs.Workdir(path).run)
            for step in lost:
                os.remove(os.path.join(path, "checkpoints", f"ckpt-{step}.index"))
            command = ["-m", "trainers.train", *options(path), "--config.strategy=multi_worker"]
            environment = {"TF_CONFIG": cluster.tf_config(addresses, index=index)}
            workers.append(running.enter_context(processes.started(*command, **environment)))
        for worker in workers:
            errors = worker.communicate(timeout=300)[1]
            assert worker.returncode == 1
            assert "step 39" in errors and "step 36" in errors and "same --workdir" in errors
            assert "Traceback" not in errors


# Slow: three processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_all_workers_stop_where_another_training_has_the_workdir(tmp_path):
    with workdirs.Workdir(str(tmp_path / "run")).locked():
        done = processes.run(*launcher(str(tmp_path / "run")))
    assert done.returncode == 1
    assert f"[0] error: Another training writes to {tmp_path / 'run'} now (process " in done.stderr
    assert "Traceback" not in done.stderr
