"""Whatever is sent, the server answers with an error it knows, and goes on."""

import json
import os

import grpc
import hypothesis
import numpy as np
import requests
import tensorflow as tf
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from tests import saved_models, tensor_protos

SETTINGS = hypothesis.settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
METHODS = [
    "/tensorflow.serving.PredictionService/Predict",
    "/tensorflow.serving.PredictionService/Classify",
    "/tensorflow.serving.PredictionService/Regress",
    "/tensorflow.serving.PredictionService/MultiInference",
    "/tensorflow.serving.PredictionService/GetModelMetadata",
    "/tensorflow.serving.ModelService/GetModelStatus",
]
EXPECTED = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,
}
SIGNATURES = ["", "serving_bytes", "similarity", "types", "parse", "classify", "regress"]
ALIASES = [
    "images",
    "image_bytes",
    "left",
    "right",
    "numbers",
    "names",
    "flags",
    "inputs",
    "examples",
    "x",
]


def _right_request():
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(saved_models.IMAGES[:1]))
    return request.SerializeToString()


def _check_message(text, target):
    assert target.folder not in text and os.getcwd() not in text and "Traceback" not in text


def _call(target, method, data):
    try:
        target.channel.unary_unary(method)(data, timeout=30)
    except grpc.RpcError as error:
        _check_message(error.details(), target)
        return error.code()
    return grpc.StatusCode.OK


@SETTINGS
@hypothesis.given(st.sampled_from(METHODS), st.binary(max_size=200))
def test_bytes_that_are_no_message(target, method, data):
    # gRPC itself answers INTERNAL to what is no protobuf.
    assert _call(target, method, data) in EXPECTED | {grpc.StatusCode.INTERNAL}


@SETTINGS
@hypothesis.given(st.data())
def test_broken_messages(target, data):
    content = bytearray(_right_request())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(80, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255))
    code = _call(target, METHODS[0], bytes(content[: data.draw(st.integers(0, len(content)))]))
    assert code in EXPECTED | {grpc.StatusCode.INTERNAL}


@st.composite
def _requests(draw):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = draw(st.sampled_from(["tiny", "tiny", "tiny", "examples", "", "é"]))
    request.model_spec.signature_name = draw(st.sampled_from([*SIGNATURES, "none"]))
    if draw(st.integers(0, 9)) == 0:
        request.model_spec.version.value = draw(st.integers(-(2**63), 2**63 - 1))
    for alias in draw(st.lists(st.sampled_from(ALIASES), max_size=3)):
        request.inputs[alias].CopyFrom(draw(tensor_protos.protos()))
    request.output_filter.extend(draw(st.lists(st.sampled_from(["embeddings", "x"]), max_size=2)))
    return request


@SETTINGS
@hypothesis.given(_requests())
def test_messages_without_sense(target, request_):
    assert _call(target, METHODS[0], request_.SerializeToString()) in EXPECTED


@SETTINGS
@hypothesis.given(st.sampled_from(SIGNATURES[:5]), st.data())
def test_tensors_of_any_type_and_shape(target, signature, data):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = signature
    aliases = {"similarity": ["left", "right"], "types": ["numbers", "names", "flags"]}
    aliases["parse"] = ["examples"]
    for alias in aliases.get(signature, ["image_bytes" if signature else "images"]):
        request.inputs[alias].CopyFrom(data.draw(tensor_protos.protos()))
    assert _call(target, METHODS[0], request.SerializeToString()) in EXPECTED


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["b64", *ALIASES]) | st.text(max_size=3), inner)
    ),
    max_leaves=12,
)


def _post(target, path, data):
    response = requests.post(f"{target.rest}{path}", data=data, timeout=30)
    assert response.status_code in (200, 400, 404, 501), response.text
    if response.status_code != 200:
        assert list(response.json()) == ["error"]
        _check_message(response.text, target)


@SETTINGS
@hypothesis.given(
    st.sampled_from(["predict", "classify", "regress"]),
    st.sampled_from([*SIGNATURES, 1, None]),
    st.sampled_from(["instances", "inputs", "examples", "context"]),
    _json,
)
def test_json_without_sense(target, method, signature, key, value):
    body = {key: value} if signature == "" else {"signature_name": signature, key: value}
    _post(target, f"/v1/models/tiny:{method}", json.dumps(body))


@SETTINGS
@hypothesis.given(st.binary(max_size=60))
def test_bodies_that_are_no_json(target, data):
    _post(target, "/v1/models/tiny:predict", data)


def test_bodies_made_to_hurt(target):
    deep = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    digits = b'{"instances": [' + b"9" * 100_000 + b"]}"
    for data in (deep, deep[:50_000], digits, b'{"instances": [1e999]}', b'{"a": "\\ud800"}'):
        _post(target, "/v1/models/tiny:predict", data)
    nested = 1.0
    for _ in range(400):
        nested = [nested]
    _post(target, "/v1/models/tiny:predict", json.dumps({"instances": nested}))
    lone = json.dumps({"signature_name": "serving_bytes", "instances": ["\ud800"]})
    _post(target, "/v1/models/tiny:predict", lone)


@SETTINGS
@hypothesis.given(
    st.text(min_size=1, max_size=30), st.sampled_from(["", "/metadata", "/versions/1"])
)
def test_names_of_any_kind(target, name, resource):
    # Conformance tests load "more" and unload it, whose versions then have a state: that is no 404.
    hypothesis.assume(name not in ("tiny", "examples", "more"))
    quoted = requests.utils.quote(name, safe="./%")
    response = requests.get(f"{target.rest}/v1/models/{quoted}{resource}", timeout=30)
    assert response.status_code in (400, 404)
    _check_message(response.text, target)


def test_it_is_still_there(target):
    body = {"instances": np.zeros((1, *saved_models.SHAPE)).tolist()}
    assert target.post("/v1/models/tiny:predict", body).ok
    assert _call(target, METHODS[0], _right_request()) == grpc.StatusCode.OK
