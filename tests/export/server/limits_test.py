"""Clients that ask for too much, are slow or play tricks get an answer, and others theirs."""

import contextlib
import http.client
import socket

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf

from export import server
from export.saved_model import session
from tests import serving_calls as calls
from tests.serving_calls import TIMEOUT


@pytest.fixture(scope="module")
def small(models_folder):
    """A server with low limits."""
    limits = server.Limits(max_bytes=1 << 16, max_requests=3, seconds=1.5, max_connections=12)
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
