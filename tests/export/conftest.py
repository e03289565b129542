"""One server for all tests of its answers: the local one, or the one given by --target."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import threading
import time
import types

import grpc
import pytest
import requests
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from export.saved_model import session
from tests import served_models
from tests.serving_calls import TIMEOUT


@dataclasses.dataclass(frozen=True)
class Target:
    """A server under test."""

    prediction: prediction_service_pb2_grpc.PredictionServiceStub
    channel: grpc.Channel
    models: model_service_pb2_grpc.ModelServiceStub
    grpc: str
    rest: str
    folder: str

    def get(self, path):
        return requests.get(f"{self.rest}{path}", timeout=30)

    def post(self, path, body):
        data = body if isinstance(body, bytes) else None
        json = None if data is not None else body
        return requests.post(f"{self.rest}{path}", data=data, json=json, timeout=30)


@pytest.fixture(scope="session")
def models_folder(request, tmp_path_factory):
    """The folder with the models of `tests.served_models`."""
    given = request.config.getoption("--target_models")
    return given or served_models.save_all(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def target(request, models_folder):
    """The server that conformance tests ask."""
    given = request.config.getoption("--target")
    if given:
        grpc_address, _, rest_address = given.partition(",")
        yield from _connected(grpc_address, rest_address, models_folder)
        return
    with _local_server(models_folder) as (grpc_address, rest_address):
        yield from _connected(grpc_address, rest_address, models_folder)


@contextlib.contextmanager
def _local_server(folder):
    """A process of its own: a request that kills it is found out."""
    command = [sys.executable, "-m", "export.serve", f"--models_config={folder}/models.config"]
    command += ["--grpc_port=0", "--rest_port=0", "--file_system_poll_wait_seconds=0.1"]
    command += ["--allow_version_labels_for_unavailable_models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while "REST" not in said:
                line = process.stdout.readline()
                assert line, f"the server does not start: {said}"
                said += line
            addresses = [re.search(r, said)[1] for r in (r"gRPC  (\S+)", r"http://([^/]+)")]
            _await(f"http://{addresses[1]}/v1/models/tiny/versions/1/metadata")
            yield addresses
            assert process.poll() is None, "the server has come to an end"
        finally:
            process.terminate()


def _await(url):
    """Until there is an answer: the server says that it is ready when one version is."""
    while not requests.get(url, timeout=TIMEOUT).ok:
        time.sleep(0.02)


def _connected(grpc_address, rest_address, folder):
    with grpc.insecure_channel(grpc_address) as channel:
        yield Target(
            prediction=prediction_service_pb2_grpc.PredictionServiceStub(channel),
            channel=channel,
            models=model_service_pb2_grpc.ModelServiceStub(channel),
            grpc=grpc_address,
            rest=f"http://{rest_address}",
            folder=folder,
        )


@pytest.fixture
def gate(monkeypatch):
    """Holds every run of a session back until it is set."""
    opened = threading.Event()
    entered = threading.Semaphore(0)
    run = session.SavedModelSession.run_tensors

    def wait(self, *args, **kwargs):
        entered.release()
        assert opened.wait(TIMEOUT)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(session.SavedModelSession, "run_tensors", wait)
    yield types.SimpleNamespace(open=opened.set, entered=lambda: entered.acquire(timeout=TIMEOUT))
    opened.set()
