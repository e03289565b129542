import os
import signal
import subprocess
import sys
import time

import pytest

from tests import processes
from trainers import launch


def _of_workers(text):
    """The workers' lines: other tests may have left TensorFlow threads here that write as well."""
    return sorted(line for line in text.splitlines() if line.startswith("["))


def script(text):
    return [sys.executable, "-c", "import os, sys, time, json, signal\n" + text]


_INDEX = "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"


def test_output_is_prefixed_and_only_the_chief_s_is_whole(capfd):
    command = script(_INDEX + "print('out', index); print('err', index, file=sys.stderr)")
    assert launch.launch(command, workers=2) == 0
    found = capfd.readouterr()
    assert found.out == "[0] out 0\n"
    assert _of_workers(found.err) == ["[0] err 0", "[1] err 1"]


def test_workers_get_the_same_cluster(capfd):
    launch.launch(script("print(os.environ['TF_CONFIG'], file=sys.stderr)"), workers=2)
    lines = _of_workers(capfd.readouterr().err)
    assert len(lines) == 2 and len({line[4:].partition('"task"')[0] for line in lines}) == 1


@pytest.mark.parametrize(
    ("ending", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_the_first_failure_ends_the_rest(ending, status, monkeypatch, capfd):
    monkeypatch.setattr(launch, "_GRACE", 0.2)
    began = time.monotonic()
    command = script(_INDEX + f"if index == 1: {ending}\ntime.sleep(300)")
    assert launch.launch(command, workers=3) == status
    assert time.monotonic() - began < 100
    assert f"Worker 1 ended with status {status}" in capfd.readouterr().err


def test_workers_that_notice_by_themselves_keep_their_messages(capfd):
    command = script(_INDEX + "if index == 1: sys.exit(3)\ntime.sleep(0.5); sys.exit('lost 1')")
    assert launch.launch(command, workers=2) == 3
    assert "[0] lost 1" in capfd.readouterr().err


def test_signals_are_passed_on(tmp_path):
    text = (
        "def stop(*_): print('stopping', flush=True); sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        f"open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w').close()\n"
        "print('ready', flush=True); time.sleep(300)"
    )
    launching = "import sys; from trainers import launch\n"
    launching += f"sys.exit(launch.launch({script(text)!r}, workers=2))"
    process = subprocess.Popen(
        [sys.executable, "-c", launching], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "[0] ready\n"
    end = time.monotonic() + 60
    while len(os.listdir(tmp_path)) < 2:  # Worker 1 as well, whose output is not shown.
        assert time.monotonic() < end, "Worker 1 has not started."
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=300)
    assert out == "[0] stopping\n" and process.returncode == 75


def test_nothing_is_left_running(capfd):
    launch.launch(script("print(os.getpid())"), workers=1)
    pid = int(capfd.readouterr().out.removeprefix("[0] "))
    assert not os.path.exists(f"/proc/{pid}")


def test_output_that_nobody_reads():
    """All ends at once: the worker that is not shown would sleep for minutes."""
    talks = script(_INDEX + "if index == 1: time.sleep(300)\nprint('line'); time.sleep(300)")
    code = (
        "from circle_tf.utils import quiet; from trainers import launch\n"
        f"with quiet.unread_output(): launch.launch({talks!r}, workers=2)"
    )
    began = time.monotonic()
    assert processes.unread("-c", code) == (141, "")
    assert time.monotonic() - began < 100
