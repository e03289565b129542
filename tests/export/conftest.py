"""One server for all tests of its answers: the local one, or the one given by --target."""

import dataclasses

import grpc
import pytest
import requests
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from export import server
from tests import served_models


@dataclasses.dataclass(frozen=True)
class Target:
    """A server under test."""

    prediction: prediction_service_pb2_grpc.PredictionServiceStub
    models: model_service_pb2_grpc.ModelServiceStub
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
    config = served_models.config(models_folder)
    with server.Server(config, labels_for_unavailable=True, poll_seconds=0.1) as started:
        for name, version in (("tiny", 1), ("tiny", 2), ("examples", 1)):
            started.wait_until_available(name, version=version)
        local = f"127.0.0.1:{started.grpc_port}", f"127.0.0.1:{started.rest_port}"
        yield from _connected(*local, models_folder)


def _connected(grpc_address, rest_address, folder):
    with grpc.insecure_channel(grpc_address) as channel:
        yield Target(
            prediction=prediction_service_pb2_grpc.PredictionServiceStub(channel),
            models=model_service_pb2_grpc.ModelServiceStub(channel),
            rest=f"http://{rest_address}",
            folder=folder,
        )
