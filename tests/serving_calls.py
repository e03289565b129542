"""Calls of a server, as tests make them."""

import contextlib
import threading

import grpc
import requests
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tests.saved_models import IMAGES

TIMEOUT = 30


def request(**spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.pop("name", "tiny")
    request.model_spec.version_label = spec.pop("label", "")
    if not request.model_spec.version_label:
        request.model_spec.ClearField("version_label")
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(IMAGES[:2]))
    return request


@contextlib.contextmanager
def stub(started, kind=prediction_service_pb2_grpc.PredictionServiceStub):
    with grpc.insecure_channel(f"127.0.0.1:{started.grpc_port}") as channel:
        yield kind(channel)


def url(started, path=""):
    return f"http://127.0.0.1:{started.rest_port}{path}"


def get(started, path):
    return requests.get(url(started, path), timeout=TIMEOUT)


def is_alive(started):
    with stub(started) as opened:
        opened.Predict(request(), timeout=TIMEOUT)
    body = {"instances": IMAGES[:1].tolist()}
    return requests.post(url(started, "/v1/models/tiny:predict"), json=body, timeout=TIMEOUT).ok


def post_async(started, results):
    def post():
        body = {"instances": IMAGES[:1].tolist()}
        address = url(started, "/v1/models/tiny:predict")
        results.append(requests.post(address, json=body, timeout=TIMEOUT).status_code)

    thread = threading.Thread(target=post)
    thread.start()
    return thread
