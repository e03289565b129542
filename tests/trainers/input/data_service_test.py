import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from configs import digits
from trainers import launch
from trainers.cli import commands
from trainers.input import data_service

STEPS = 10


def batch(step):
    return np.full([2], step), np.array([step, step])


def local(step, count):
    return iter([batch(step + each) for each in range(count)])


def order(served, **lengths):
    lengths = {"start_step": 5, "num_steps": STEPS, **lengths}
    return [int(ids[0]) for _, ids in data_service.in_order(served, local, **lengths)]


def stream(steps, *, error=None):
    def served():
        for step in steps:
            yield (step, *batch(step))
        if error is not None:
            raise error

    return served


EXPECTED = list(range(5, 5 + STEPS))


def test_batches_are_put_in_order():
    assert order(stream([7, 5, 6, *range(14, 7, -1)])) == EXPECTED


def test_what_a_dead_worker_took_with_it_is_made_here(monkeypatch):
    monkeypatch.setattr(data_service, "_AHEAD", 3)
    assert order(stream([step for step in EXPECTED if step not in (5, 9)])) == EXPECTED


@pytest.mark.parametrize("steps", [[], [6, 8], EXPECTED[:4]])
def test_a_service_that_fails_is_done_without(steps):
    with pytest.warns(UserWarning, match="stopped to answer at step .*gone"):
        assert (
            order(stream(steps, error=tf.errors.UnavailableError(None, None, "gone"))) == EXPECTED
        )


def test_a_service_that_does_not_answer_is_done_without(monkeypatch):
    monkeypatch.setattr(data_service, "_PATIENCE", 0.05)

    def silent():
        yield (5, *batch(5))
        time.sleep(1)

    with pytest.warns(UserWarning, match="no batch in"):
        assert order(silent) == EXPECTED


def test_shards_are_refused(monkeypatch):
    class Split:
        examples = object.__new__(data_service.records.RecordFiles)

    with pytest.raises(commands.ConfigError, match="TFRecord"):
        data_service.batches(digits.get_config(), Split(), start_step=0, num_steps=1, part=(0, 1))


def wait_for(port):
    for _ in range(1200):
        with socket.socket() as trial:
            if trial.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail("The server has not started.")


@pytest.fixture
def servers():
    """A dispatcher and two workers, each a process."""
    ports = launch.free_ports(3)
    command = [sys.executable, "-m", "trainers.data_server", f"--port={ports[0]}"]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL)]
    for port in ports[1:]:
        worker = [*command[:3], f"--port={port}", f"--dispatcher=localhost:{ports[0]}"]
        processes.append(subprocess.Popen(worker, stdout=subprocess.DEVNULL))
    for port in ports:
        wait_for(port)
    yield f"localhost:{ports[0]}", processes
    for process in processes:
        process.kill()
        process.wait()


# In a process of its own: TensorFlow's client of a dead service never stops to look for it.
_READS = """
import os, signal, sys, warnings
import numpy as np
from configs import digits
from trainers.input import data_service
from trainers import datasets

address, *pids = sys.argv[1:]
dispatcher, *workers = map(int, pids)
data_service._AHEAD, data_service._PATIENCE = 8, 5.0
config = digits.get_config()
config.data_service = address
split = datasets.load(config.dataset).train
place = {"start_step": 3, "num_steps": 120, "part": (1, 2)}
expected = data_service.own_batches(config, split, **place).as_numpy_iterator()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = data_service.batches(config, split, **place).as_numpy_iterator()
    for number in range(120):
        for one, other in zip(next(expected), next(found), strict=True):
            np.testing.assert_array_equal(one, other)
        if number == 10:
            assert not [w for w in caught if "tf.data service" in str(w.message)]
            os.kill(workers[0], signal.SIGKILL)
        if number == 60:
            os.kill(workers[1], signal.SIGKILL)
            os.kill(dispatcher, signal.SIGKILL)
    assert next(found, None) is None
assert [w for w in caught if "tf.data service has stopped" in str(w.message)]
print("the same batches", flush=True)
os._exit(0)  # The client's threads would hold up the end.
"""


# Slow: four processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_the_same_batches_though_a_worker_and_then_all_are_killed(servers):
    address, processes = servers
    pids = [str(process.pid) for process in processes]
    command = [sys.executable, "-c", _READS, address, *pids]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "the same batches\n"), done.stderr
