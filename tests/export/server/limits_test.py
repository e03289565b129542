"""Clients that ask for too much, are slow or play tricks get an answer, and others theirs."""

import contextlib
import http.client
import io
import socket
import subprocess
import sys

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from circle_tf.serving import servable
from export import server
from export.saved_model import session
from export.verification import probes
from tests import saved_models
from tests import serving_calls as calls
from tests.serving_calls import TIMEOUT


@pytest.fixture(scope="module")
def small(models_folder):
    """A server with low limits."""
    limits = server.Limits(
        max_bytes=1 << 16, max_elements=10_000, max_requests=3, seconds=1.5, max_connections=12
    )
    config = server.for_model("tiny", f"{models_folder}/tiny")
    with server.Server(config, limits=limits) as started:
        started.wait_until_available("tiny")
        yield started


def test_oversize_requests(small):
    request = calls.request()
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(np.zeros((300, 8, 8, 1), np.float32)))
    with calls.stub(small) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=TIMEOUT)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    url = calls.url(small, "/v1/models/tiny:predict")
    for data in (b"x" * (1 << 17), iter([b"x" * (1 << 12)] * 32)):  # Declared, and in chunks.
        with contextlib.suppress(requests.ConnectionError):  # It may be cut off in the middle.
            response = requests.post(url, data=data, timeout=TIMEOUT)
            assert response.status_code == 413
            assert response.json() == {"error": "The request body is larger than 65536 bytes."}
    assert calls.is_alive(small)


def test_a_small_message_cannot_ask_for_a_large_tensor(small):
    request = calls.request()
    request.inputs["images"].ClearField("tensor_content")
    request.inputs["images"].tensor_shape.dim[0].size = 1 << 30
    with calls.stub(small) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=TIMEOUT)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_each_input_cannot_ask_for_a_large_tensor(small, monkeypatch):
    request = calls.request()
    for number in range(100):
        request.inputs[str(number)].CopyFrom(request.inputs["images"])
    monkeypatch.delattr("export.server.inference.from_proto")
    with calls.stub(small) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request, timeout=TIMEOUT)
    assert "input size does not match signature: 101!=1" in caught.value.details()


@pytest.mark.parametrize("method", ["Classify", "Regress", "MultiInference"])
def test_a_context_is_counted_for_each_example(small, method):
    examples = input_pb2.ExampleListWithContext(examples=[{}] * 1000)
    examples.context.features.feature["a"].bytes_list.value.append(b"x" * 1000)
    spec = {"name": "tiny", "signature_name": method.lower()}
    given = {"model_spec": spec}
    request = {
        "Classify": lambda: classification_pb2.ClassificationRequest(**given),
        "Regress": lambda: regression_pb2.RegressionRequest(**given),
        "MultiInference": lambda: inference_pb2.MultiInferenceRequest(
            tasks=[
                {
                    "model_spec": spec | {"signature_name": "classify"},
                    "method_name": "tensorflow/serving/classify",
                }
            ]
        ),
    }[method]()
    request.input.example_list_with_context.CopyFrom(examples)
    with calls.stub(small) as stub, pytest.raises(grpc.RpcError) as caught:
        getattr(stub, method)(request, timeout=TIMEOUT)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "A list of tf.Examples of 10" in caught.value.details()


def test_json_cannot_ask_for_more(small):
    body = {"examples": [{}] * 1000, "context": {"a": "x" * 1000}, "signature_name": "classify"}
    response = requests.post(
        calls.url(small, "/v1/models/tiny:classify"), json=body, timeout=TIMEOUT
    )
    assert response.status_code == 413 and "A list of tf.Examples of" in response.json()["error"]
    body = {"instances": [[]] * 6000}
    response = requests.post(
        calls.url(small, "/v1/models/tiny:predict"), json=body, timeout=TIMEOUT
    )
    assert response.status_code == 413
    assert response.json() == {
        "error": "A body of 12001 elements is larger than the 10000 allowed."
    }


def test_too_many_requests_at_once(small, gate):
    with calls.stub(small) as stub:
        futures = [stub.Predict.future(calls.request(), timeout=TIMEOUT) for _ in range(3)]
        assert all(gate.entered() for _ in futures)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(calls.request(), timeout=TIMEOUT)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        gate.open()
        assert [call.result().model_spec.version.value for call in futures] == [2] * 3


def test_a_call_given_up_before_its_turn_is_not_run(small, monkeypatch):
    def run(self, feeds, *, fetches):
        raise AssertionError("It was run.")

    with monkeypatch.context() as patched, calls.stub(small) as stub:
        patched.setattr("grpc._server._Context.is_active", lambda self: False)
        patched.setattr(session.SavedModelSession, "run_tensors", run)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Predict(calls.request(), timeout=TIMEOUT)
        assert caught.value.code() == grpc.StatusCode.CANCELLED
    assert calls.is_alive(small)


def test_too_many_rest_requests_and_slow_ones(small, gate):
    results = []
    threads = [calls.post_async(small, results) for _ in range(3)]
    assert all(gate.entered() for _ in threads)
    response = calls.get(small, "/v1/models/tiny")
    assert response.status_code == 429 and "Try again later" in response.json()["error"]
    for thread in threads:
        thread.join(TIMEOUT)
    assert results == [504] * 3  # After limits.seconds.
    gate.open()
    for _ in range(200):  # Their places are free once the session is done with them.
        if calls.get(small, "/v1/models/tiny").ok:
            break
    assert calls.is_alive(small)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /v1/models/tiny HTTP/1.1\r\nHost: a\r\nX: ",
        b"POST /v1/models/tiny:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n{",
    ],
    ids=["nothing", "half a header", "half a body"],
)
def test_slow_clients_are_cut_off(small, sent):
    with socket.create_connection(("127.0.0.1", small.rest_port), timeout=TIMEOUT) as client:
        client.sendall(sent)
        answer = b""
        while data := client.recv(1 << 16):
            answer += data
        assert answer == b"" or b" 504 " in answer.splitlines()[0]


def test_many_idle_connections_do_not_keep_others_out_for_long(small):
    address = ("127.0.0.1", small.rest_port)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(address)) for _ in range(20)]
        clients[-1].settimeout(TIMEOUT)
        assert clients[-1].recv(1) == b""  # One beyond the limit: closed at once.
        clients[0].settimeout(TIMEOUT)
        assert clients[0].recv(1) == b""  # And these after a while.
    assert calls.is_alive(small)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/..%2f..%2fetc:predict",
        "/v1/models/../../etc/passwd",
        "/v1/models/%2e%2e/metadata",
        "/v1/models/tiny%00/metadata",
        "/v1/models/%ff/metadata",
        "/v1/models/tiny/labels/%2e%2e:predict",
        "//etc/passwd",
        "/../../etc/passwd",
        "/v1/models/" + "a" * 10000,
        "/v1/models/tiny/versions/-1",
        "/v1/models/tiny/versions/%D9%A3",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_path_tricks(small, models_folder, method, path):
    client = http.client.HTTPConnection("127.0.0.1", small.rest_port, timeout=TIMEOUT)
    with contextlib.closing(client):
        client.putrequest(method, path, skip_accept_encoding=True)
        client.putheader("Content-Length", "2")
        client.endheaders(b"{}")
        response = client.getresponse()
        text = response.read().decode()
    assert response.status in (400, 404)
    assert "root:" not in text and models_folder not in text


def test_grpc_names_are_names(small):
    with calls.stub(small) as stub:
        for name in ("../tiny", "/etc", "tiny/1", "tiny\n", "a" * 50_000):
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(calls.request(name=name), timeout=TIMEOUT)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert calls.is_alive(small)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A server of a published model in a process of its own, `(process, gRPC address)`."""
    base_path = tmp_path_factory.mktemp("models") / "tiny"
    names = ["serving_bytes", "serving_examples"]
    servable.save_servable(saved_models.embedding_model(), base_path / "1", signatures=names)
    command = [sys.executable, "-m", "export.serve", "--model_name=tiny", "--grpc_port=0"]
    command += [f"--model_base_path={base_path}", "--rest_port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            found = next(line.split()[1] for line in lines if line.startswith("gRPC"))
            yield process, found
        finally:
            process.terminate()


def _bombs():
    """Small requests that took gigabytes, or ended the process."""
    shape = tf.TensorShape([65536, 32, 32, 1]).as_proto()
    yield "", "images", tensor_pb2.TensorProto(dtype=1, tensor_shape=shape, float_val=[0])
    shape = tf.TensorShape([1 << 18, *saved_models.SHAPE]).as_proto()
    yield "", "images", tensor_pb2.TensorProto(dtype=1, tensor_shape=shape, float_val=[0])
    shape = tf.TensorShape([1 << 20]).as_proto()
    long = tensor_pb2.TensorProto(dtype=7, tensor_shape=shape, string_val=[b"a" * (1 << 20)])
    yield "serving_bytes", "image_bytes", long
    for kind in ("JPEG", "PNG", "GIF"):
        stream = io.BytesIO()
        Image.new("1", (9000, 9000)).save(stream, kind)
        yield "serving_bytes", "image_bytes", tf.make_tensor_proto([stream.getvalue()])
        examples = probes.as_examples([stream.getvalue()])
        yield "serving_examples", "examples", tf.make_tensor_proto(examples)


def _most_memory(process):
    """The most that a process has held, in bytes."""
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


# Starts a process that imports TensorFlow: 10 seconds.
@pytest.mark.slow
def test_small_requests_neither_end_the_process_nor_fill_memory(address):
    process, target = address
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Predict(calls.request(), timeout=TIMEOUT)
        before = _most_memory(process)
        for signature, alias, proto in _bombs():
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "tiny", signature
            request.inputs[alias].CopyFrom(proto)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=TIMEOUT)
            assert caught.value.code().name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED")
            assert any(w in caught.value.details() for w in ("allowed", "at most"))
        assert _most_memory(process) - before < 300 << 20
        stub.Predict(calls.request(), timeout=TIMEOUT)
    assert process.poll() is None


def _damaged(random):
    """Image files of all formats with some bytes changed, most of them in their headers."""
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP") * 100:
        stream = io.BytesIO()
        Image.new("RGB", (40, 30), (9, 8, 7)).save(stream, kind)
        content = bytearray(stream.getvalue())
        for _ in range(random.integers(1, 6)):
            content[random.integers(min(len(content), 60))] = random.choice([0, 1, 127, 255])
        yield bytes(content)


# It needs the process above.
@pytest.mark.slow
def test_damaged_images_are_answered_within_bounds(address):
    process, target = address
    codes = set()
    with grpc.insecure_channel(target) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        for content in _damaged(np.random.default_rng(0)):
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "tiny", "serving_bytes"
            request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([content]))
            try:
                stub.Predict(request, timeout=TIMEOUT)
                codes.add("OK")
            except grpc.RpcError as error:
                codes.add(error.code().name)
    assert codes == {"OK", "INVALID_ARGUMENT"} and process.poll() is None
    assert _most_memory(process) < 4 << 30
