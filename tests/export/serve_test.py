"""The command: it prints its ports, serves, and ends in good order."""

import gc
import os
import re
import signal
import unittest.mock

import pytest
import requests

from export import serve, server
from tests import processes

COMMAND = "-m", "export.serve"


# Starts a process that imports TensorFlow, and waits for a model: 10 seconds.
@pytest.mark.slow
def test_serves_until_it_is_told_to_stop(models_folder):
    options = ["--model_name=tiny", f"--model_base_path={models_folder}/tiny"]
    ports = ["--grpc_port=0", "--rest_port=0"]
    with processes.started(*COMMAND, *options, *ports) as process:
        rest, serving, by_grpc = sorted(process.stdout.readline() for _ in range(3))
        assert serving == "Serving tiny/2\n"
        assert re.fullmatch(r"gRPC  127\.0\.0\.1:\d+\n", by_grpc)
        url = re.fullmatch(r"REST  (http://127\.0\.0\.1:\d+/v1/models/tiny)\n", rest)[1]
        assert requests.get(url, timeout=30).json()["model_version_status"][0]["version"] == "2"
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert rest == "Stopping: no more requests are taken.\nUnloaded tiny/2\n"


# Starts a process that imports TensorFlow.
@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_is_an_error(tmp_path):
    os.makedirs(tmp_path / "m" / "1")
    options = ["--model_name=m", f"--model_base_path={tmp_path}/m", "--grpc_port=0"]
    with processes.started(*COMMAND, *options, "--rest_port=0") as process:
        told, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert told.startswith("Cannot load m/1: NOT_FOUND: SavedModel file does not exist")
    assert errors.startswith("error: 1 model(s) did not become available")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give either --models_config=FILE or both --model_name=NAME and"),
        (["--model_name=m"], "Give either --models_config=FILE"),
        (["--models_config=a", "--model_name=m", "--model_base_path=."], "Give either"),
        (["--models_config=none"], "There is no file 'none'"),
        (["--model_name=m", "--model_base_path=none"], "There is no base path 'none'. Publish"),
        (["--rest_port=70000"], "--rest_port=70000"),
    ],
)
def test_errors_are_for_people(options, message):
    with processes.started(*COMMAND, *options) as process:
        told = "".join(process.communicate(timeout=300))
    assert process.returncode == 1
    assert message in told and "Traceback" not in told


def test_what_is_loaded_before_any_model_is_no_work_of_the_garbage_collector(monkeypatch):
    monkeypatch.setattr(server, "Server", lambda *args, **kwargs: gc.get_freeze_count())
    try:
        assert serve.start(unittest.mock.MagicMock()) > 50_000  # TensorFlow's modules have 300,000.
    finally:
        gc.unfreeze()
