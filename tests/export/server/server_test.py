"""The whole server: versions swapped under calls, limits, hostile clients, the end."""

import asyncio
import contextlib
import os
import shutil
import socket
import threading

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
)

from export import server
from export.cli import console
from export.saved_model import session, warmup
from export.server import opening
from tests import saved_models, served_models
from tests import serving_calls as calls
from tests.serving_calls import TIMEOUT

IMAGES = saved_models.IMAGES


@pytest.fixture
def base_path(tmp_path, models_folder):
    """A base path with version 1 of two."""
    shutil.copytree(f"{models_folder}/tiny/1", tmp_path / "tiny" / "1")
    return tmp_path / "tiny"


@pytest.fixture
def publish(models_folder, base_path):
    """Publishes version 2 as a publisher does: by rename."""

    def publish():
        shutil.copytree(f"{models_folder}/tiny/2", base_path / ".stage")
        os.rename(base_path / ".stage", base_path / "2")

    return publish


class Callers:
    """Threads that call without a pause, by gRPC and REST, and keep what they see."""

    def __init__(self, started, *, label=""):
        self._started = started
        self._label = label
        self._stop = threading.Event()
        self.errors = []
        self.seen = []
        self._threads = [threading.Thread(target=self._grpc) for _ in range(2)]
        self._threads.append(threading.Thread(target=self._rest))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _grpc(self):
        expected = {v: served_models.embedded(IMAGES[:2], shift=v) for v in (1, 2)}
        with calls.stub(self._started) as stub:
            while not self._stop.is_set():
                try:
                    response = stub.Predict(calls.request(label=self._label), timeout=TIMEOUT)
                    version = response.model_spec.version.value
                    found = tf.make_ndarray(response.outputs["embeddings"])
                    np.testing.assert_allclose(found, expected[version], atol=1e-5)
                    self.seen.append(version)
                except (grpc.RpcError, AssertionError) as error:
                    self.errors.append(error)

    def _rest(self):
        path = f"/v1/models/tiny{f'/labels/{self._label}' if self._label else ''}:predict"
        with requests.Session() as client:
            while not self._stop.is_set():
                body = {"instances": IMAGES[:1].tolist()}
                response = client.post(calls.url(self._started, path), json=body, timeout=TIMEOUT)
                if response.status_code != 200:
                    self.errors.append(response.text)

    def until(self, version, count=20):
        """Waits until this many answers from the version have come."""
        start = len(self.seen)
        ticks = 0
        while self.seen[start:].count(version) < count and not self.errors and ticks < 600:
            ticks += 1
            self._stop.wait(0.05)


def test_a_hot_swap_fails_no_call(base_path, publish):
    with server.Server(server.for_model("tiny", base_path), poll_seconds=0.05) as started:
        started.wait_until_available("tiny")
        with Callers(started) as callers:
            callers.until(1)
            publish()
            callers.until(2)
            shutil.rmtree(base_path / "2")  # Back to version 1, which is loaded again.
            callers.until(1)
    assert callers.errors == []
    assert {1, 2} <= set(callers.seen)
    assert sorted(callers.seen[:20]) == [1] * 20


def test_promote_and_rollback_fail_no_call(models_folder):
    config = served_models.config(models_folder)
    with (
        server.Server(config, labels_for_unavailable=True) as started,
        calls.stub(started, model_service_pb2_grpc.ModelServiceStub) as stub,
    ):
        started.wait_until_available("tiny", version=1)
        started.wait_until_available("tiny", version=2)
        with Callers(started, label="stable") as callers:
            for version in (2, 1, 2):
                config.model_config_list.config[0].version_labels["stable"] = version
                request = model_management_pb2.ReloadConfigRequest(config=config)
                stub.HandleReloadConfigRequest(request, timeout=TIMEOUT)
                callers.until(version)
    assert callers.errors == []
    assert {1, 2} == set(callers.seen)


def test_a_broken_version_is_told_without_its_path(base_path, publish):
    with server.Server(server.for_model("tiny", base_path), poll_seconds=0.05) as started:
        started.wait_until_available("tiny")
        os.makedirs(base_path / "3")
        with pytest.raises(server.ServingError, match="SavedModel file does not exist at: tiny/3"):
            started.wait_until_available("tiny", version=3, timeout=TIMEOUT)
        (found, _) = calls.get(started, "/v1/models/tiny").json()["model_version_status"]
        assert (found["version"], found["state"]) == ("3", "END")
        assert found["status"]["error_code"] == "NOT_FOUND"
        assert str(base_path) not in str(found)
        assert calls.get(started, "/v1/models/tiny/metadata").ok


def test_a_version_that_xla_must_compile_is_not_served(base_path):
    with server.Server(server.for_model("tiny", base_path), poll_seconds=0.05) as started:
        started.wait_until_available("tiny")
        served_models.save_compiled(base_path / ".stage")
        os.rename(base_path / ".stage", base_path / "2")
        message = "Signature doubled calls __inference_double.*XLA must compile.*without --xla"
        with pytest.raises(server.ServingError, match=message):
            started.wait_until_available("tiny", version=2, timeout=TIMEOUT)
        found, old = calls.get(started, "/v1/models/tiny").json()["model_version_status"]
        assert found["status"]["error_code"] == "UNIMPLEMENTED"
        assert old["state"] == "AVAILABLE"


def _write_warmup(version, *logs):
    os.makedirs(version / "assets.extra", exist_ok=True)
    with tf.io.TFRecordWriter(str(version / warmup.PATH)) as writer:
        for log in logs:
            writer.write(log if isinstance(log, bytes) else log.SerializeToString())


def _predict_log(request):
    return prediction_log_pb2.PredictionLog(
        predict_log=prediction_log_pb2.PredictLog(request=request)
    )


def test_warm_up_is_replayed(base_path):
    _write_warmup(base_path / "1", *[_predict_log(calls.request())] * 3)
    with session.SavedModelSession(str(base_path / "1")) as opened:
        path = str(base_path / "1")
        assert opening.replay_warmup(opened, path, limits=server.Limits()) == 3


@pytest.mark.parametrize(
    ("logs", "message"),
    [
        ([_predict_log(predict_pb2.PredictRequest())], "input size does not match signature"),
        ([b"\xff"], "Failed to parse warmup record"),
        ([prediction_log_pb2.PredictionLog()], "Unsupported log_type for warmup: none"),
        ([_predict_log(calls.request())] * 1001, "exceeds the maximum .1000."),
    ],
    ids=["refused", "broken", "empty", "many"],
)
def test_one_bad_warm_up_record_keeps_a_version_from_serving(base_path, logs, message):
    _write_warmup(base_path / "1", *logs)
    with server.Server(server.for_model("tiny", base_path)) as started:
        with pytest.raises(server.ServingError, match=message):
            started.wait_until_available("tiny")


@pytest.fixture(scope="module")
def plain(models_folder):
    """A server of the latest version of one model."""
    with server.Server(server.for_model("tiny", f"{models_folder}/tiny")) as started:
        started.wait_until_available("tiny")
        yield started


def test_what_is_no_message_is_one_line_of_log(plain, caplog):
    method = "/tensorflow.serving.PredictionService/Predict"
    with grpc.insecure_channel(f"127.0.0.1:{plain.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"no message", timeout=TIMEOUT)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        with pytest.raises(grpc.RpcError) as unknown:
            channel.unary_unary(method + "s")(b"", timeout=TIMEOUT)
        assert unknown.value.code() == grpc.StatusCode.UNIMPLEMENTED
    message = f"The request cannot be parsed as {method} takes it."
    assert caught.value.details() == message
    assert [(record.message, record.exc_info) for record in caplog.records] == [(message, None)]


def test_metrics_have_the_names_of_tf_serving_and_no_paths(plain, models_folder):
    assert calls.is_alive(plain)
    with calls.stub(plain) as stub, contextlib.suppress(grpc.RpcError):
        stub.Predict(calls.request(name="x" * 50), timeout=TIMEOUT)
    page = calls.get(plain, "/monitoring/prometheus/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    lines = page.text.splitlines()
    assert "# TYPE :tensorflow:serving:request_count counter" in lines
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(found[':tensorflow:serving:request_count{model_name="tiny",status="OK"}']) >= 2
    latency = ':tensorflow:serving:request_latency_count{{API="Predict",entrypoint="{}",'
    for entrypoint in ("GRPC", "REST"):
        assert float(found[latency.format(entrypoint) + 'model_name="tiny"}']) >= 1
    loads = ':tensorflow:cc:saved_model:load_attempt_count{model_path="tiny/2",status="success"}'
    assert found[loads] == "1.0"
    assert models_folder not in page.text and "xxx" not in page.text  # Clients add no names.


def test_requests_under_way_are_answered_at_the_end(models_folder, gate):
    started = server.Server(server.for_model("tiny", f"{models_folder}/tiny"))
    started.wait_until_available("tiny")
    results = []
    with calls.stub(started) as stub:
        call = stub.Predict.future(calls.request(), timeout=TIMEOUT)
        thread = calls.post_async(started, results)
        assert gate.entered() and gate.entered()
        stopping = threading.Thread(target=started.stop)
        stopping.start()
        with pytest.raises(grpc.RpcError) as caught:
            for _ in range(1000):  # Until it takes no more.
                stub.GetModelMetadata(_metadata_request(), timeout=TIMEOUT)
        codes = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert caught.value.code() in codes
        gate.open()
        assert call.result().model_spec.version.value == 2
    thread.join(TIMEOUT)
    stopping.join(TIMEOUT)
    assert results == [200] and not stopping.is_alive()
    started.stop()  # Again does nothing.


def _metadata_request():
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "tiny"
    return request


def test_taken_ports(plain, models_folder):
    config = server.for_model("tiny", f"{models_folder}/tiny")
    with pytest.raises(OSError, match="REST cannot listen at 127.0.0.1"):
        server.Server(config, rest_port=plain.rest_port)
    with pytest.raises(OSError, match="gRPC cannot listen at 127.0.0.1"):
        server.Server(config, grpc_port=plain.grpc_port)
    assert calls.is_alive(plain)


def test_labels_at_the_start_need_the_flag(models_folder):
    with pytest.raises(console.ExportError, match="--allow_version_labels_for_unavailable_models"):
        server.Server(served_models.config(models_folder))


def test_models_config_is_read_again(tmp_path, models_folder):
    path = tmp_path / "models.config"
    text = 'model_config_list {{ config {{ name: "{}" base_path: "{}" model_platform: "{}" }} }}'
    path.write_text(text.format("tiny", f"{models_folder}/tiny", "tensorflow"))
    told = []
    with server.Server(path, config_poll_seconds=0.05, tell=told.append) as started:
        started.wait_until_available("tiny")
        path.write_text("model_config_list { confi")
        path.with_name("new").write_text(
            text.format("other", f"{models_folder}/examples", "tensorflow")
        )
        os.replace(path.with_name("new"), path)
        assert started.wait_until_available("other") == 1
        assert set(started.models()) == {"other"}


def test_without_a_page_there_is_none(plain):
    response = calls.get(plain, "/")
    assert (response.status_code, response.json()) == (404, {"error": "Not Found"})


def test_status_of_versions_while_they_serve(plain):
    with calls.stub(plain, model_service_pb2_grpc.ModelServiceStub) as stub:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "tiny"
        (found,) = stub.GetModelStatus(request, timeout=TIMEOUT).model_version_status
    assert (found.version, found.state) == (2, get_model_status_pb2.ModelVersionStatus.AVAILABLE)


def test_answers_do_not_wait_for_acknowledgements(plain, monkeypatch):
    """Without TCP_NODELAY every answer on a kept connection is 40 ms late."""
    seen = []
    made = asyncio.selector_events._SelectorSocketTransport.__init__

    def make(self, loop, sock, *args, **kwargs):
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        made(self, loop, sock, *args, **kwargs)

    monkeypatch.setattr(asyncio.selector_events._SelectorSocketTransport, "__init__", make)
    assert calls.get(plain, "/v1/models/tiny").ok
    assert seen and all(seen)
