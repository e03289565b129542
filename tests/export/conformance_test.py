"""The server answers as TF Serving does, case by case; --target asks a real one instead.

Held are the results and the fields they are in, the code of gRPC or the status of HTTP for what is
refused, and the gist of TF Serving's message. What is wrong with a JSON body is told in words of
our own, which `server/json_bodies_test.py` holds: here only the status, and those few words that
TF Serving has as well.
"""

import base64
import time

import grpc
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tests import saved_models, served_models

IMAGES = saved_models.IMAGES
PNG = tf.io.encode_png(IMAGES[0].astype(np.uint8)).numpy()


def _spec(name="tiny", *, version=None, label="", signature=""):
    spec = model_pb2.ModelSpec(name=name, signature_name=signature)
    if version is not None:
        spec.version.CopyFrom(wrappers_pb2.Int64Value(value=version))
    if label:
        spec.version_label = label
    return spec


def _predict_request(spec=None, *, output_filter=(), **inputs):
    request = predict_pb2.PredictRequest(model_spec=spec or _spec(), output_filter=output_filter)
    for name, value in (inputs or {"images": IMAGES[:2]}).items():
        is_proto = hasattr(value, "tensor_shape")
        request.inputs[name].CopyFrom(value if is_proto else tf.make_tensor_proto(value))
    return request


def _refused(call, request, code, *messages):
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=30)
    assert caught.value.code() == code, caught.value.details()
    for message in messages:
        assert message in caught.value.details()


def _refused_over_rest(response, status, *messages):
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    for message in messages:
        assert message in response.json()["error"]


INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("spec", "shift"),
    [
        (_spec(), 2),
        (_spec(version=1), 1),
        (_spec(label="stable"), 1),
        (_spec(label="canary"), 2),
    ],
    ids=["latest", "version", "stable", "canary"],
)
def test_predict(target, spec, shift):
    response = target.prediction.Predict(_predict_request(spec), timeout=30)
    found = response.outputs["embeddings"]
    expected = served_models.embedded(IMAGES[:2], shift=shift)
    np.testing.assert_allclose(tf.make_ndarray(found), expected, atol=1e-5)
    assert len(found.float_val) == 2 * served_models.DIMENSION and not found.tensor_content
    assert response.model_spec == _spec(version=shift, signature="serving_default")


@pytest.mark.parametrize(
    ("path", "shift"),
    [("", 2), ("/versions/1", 1), ("/labels/stable", 1), ("/labels/canary", 2)],
)
def test_predict_over_rest(target, path, shift):
    expected = served_models.embedded(IMAGES[:2], shift=shift)
    for key, result in (("instances", "predictions"), ("inputs", "outputs")):
        body = {key: IMAGES[:2].tolist()}
        response = target.post(f"/v1/models/tiny{path}:predict", body)
        assert response.headers["content-type"].startswith("application/json")
        np.testing.assert_allclose(response.json()[result], expected, atol=1e-5)


def test_named_inputs_and_outputs_of_all_types(target):
    inputs = {"numbers": [1, -6], "names": ["a", "é"], "flags": [True, False]}
    rows = [{name: values[row] for name, values in inputs.items()} for row in (0, 1)]
    expected = {
        "doubled": [2, -12],
        "names": ["a!", "é!"],
        "names_bytes": [{"b64": base64.b64encode(name.encode()).decode()} for name in "aé"],
        "negated": [False, True],
        "halves": [0.5, -3.0],
    }
    body = {"signature_name": "types", "inputs": inputs}
    assert target.post("/v1/models/tiny:predict", body).json() == {"outputs": expected}
    body = {"signature_name": "types", "instances": rows}
    assert target.post("/v1/models/tiny:predict", body).json() == {
        "predictions": [{name: values[row] for name, values in expected.items()} for row in (0, 1)]
    }
    request = _predict_request(
        _spec(signature="types"), **(inputs | {"numbers": np.int64([1, -6])})
    )
    outputs = target.prediction.Predict(request, timeout=30).outputs
    assert list(outputs["names_bytes"].string_val) == [b"a", "é".encode()]
    assert list(outputs["doubled"].int64_val) == expected["doubled"]
    assert list(outputs["negated"].bool_val) == expected["negated"]


def test_images_as_bytes(target):
    expected = served_models.embedded(IMAGES[:1], shift=2)
    item = {"b64": base64.b64encode(PNG).decode()}
    for body in ({"instances": [item]}, {"instances": [{"image_bytes": item}]}):
        body["signature_name"] = "serving_bytes"
        response = target.post("/v1/models/tiny:predict", body)
        np.testing.assert_allclose(response.json()["predictions"], expected, atol=1e-5)


def test_output_filter(target):
    spec = _spec(signature="types")
    inputs = {"numbers": np.int64([1]), "names": ["a"], "flags": [True]}
    request = _predict_request(spec, output_filter=["names", "doubled"], **inputs)
    assert set(target.prediction.Predict(request, timeout=30).outputs) == {"names", "doubled"}


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (
            _predict_request(_spec("none")),
            NOT_FOUND,
            "Servable not found for request: Latest(none)",
        ),
        (
            _predict_request(_spec(version=9)),
            NOT_FOUND,
            "Servable not found for request: Specific(tiny, 9)",
        ),
        (_predict_request(_spec(label="l")), INVALID, "Unrecognized servable version label: l"),
        (predict_pb2.PredictRequest(), INVALID, "Missing ModelSpec"),
        (_predict_request(_spec("")), INVALID, "ModelSpec has no name specified."),
        (
            _predict_request(_spec(signature="s")),
            grpc.StatusCode.FAILED_PRECONDITION,
            'Serving signature key "s" not found.',
        ),
        (
            _predict_request(images=IMAGES, more=1.0),
            INVALID,
            "input size does not match signature: 2!=1 len({images,more}) != len({images}). "
            "Sent extra: {more}. Missing but required: {}.",
        ),
        (
            _predict_request(_spec(signature="similarity"), left=[[1.0, 0.0]]),
            INVALID,
            "input size does not match signature: 1!=2 len({left}) != len({left,right}). "
            "Sent extra: {}. Missing but required: {right}.",
        ),
        (
            _predict_request(pixels=IMAGES),
            INVALID,
            "Signature input alias: images(feed name: serving_default_images:0) not found in "
            "request and no default value provided.",
        ),
        (
            _predict_request(output_filter=["x"]),
            INVALID,
            "output tensor alias not found in signature: x",
        ),
        (
            _predict_request(output_filter=["embeddings", "embeddings"]),
            INVALID,
            "duplicate output tensor alias: embeddings",
        ),
        (
            _predict_request(images=IMAGES.astype(np.float64)),
            INVALID,
            "Type mismatch: actual double vs. expect float",
        ),
        (_predict_request(images=IMAGES[0]), INVALID, "is not compatible with expected shape"),
        (_predict_request(images=IMAGES[:0]), INVALID, "The batch of images is empty"),
        (
            _predict_request(_spec(signature="serving_bytes"), image_bytes=[b"no image"]),
            INVALID,
            "Unknown image file format",
        ),
        (
            _predict_request(_spec(signature="parse"), examples=[b"\xff\xfe no example"]),
            INVALID,
            "Could not parse example input",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else None,
)
def test_refused_predict(target, request_, code, message):
    _refused(target.prediction.Predict, request_, code, message)


def _proto(**fields):
    shape = fields.pop("shape", (1, *saved_models.SHAPE))
    proto = tf.make_tensor_proto(np.zeros(0, np.float32))
    proto.ClearField("tensor_shape")
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    for name, value in fields.items():
        if name == "float_val":
            proto.float_val.extend(value)
        else:
            setattr(proto, name, value)
    return proto


@pytest.mark.parametrize(
    "proto",
    [
        _proto(tensor_content=b"12345"),
        _proto(shape=(-1, 8, 8, 1), float_val=[1.0]),
        _proto(shape=(2**40, 2**40), float_val=[1.0]),
        _proto(dtype=0),
        _proto(dtype=99),
        _proto(dtype=tf.resource.as_datatype_enum),
    ],
    ids=["content", "negative", "overflow", "no dtype", "bad dtype", "resource"],
)
def test_tensors_that_are_none(target, proto):
    request = _predict_request(images=proto)
    _refused(target.prediction.Predict, request, INVALID, "tensor parsing error: images")


def test_one_value_stands_for_all(target):
    request = _predict_request(images=_proto(float_val=[3.0]))
    found = tf.make_ndarray(target.prediction.Predict(request, timeout=30).outputs["embeddings"])
    np.testing.assert_allclose(found, np.full_like(found, 1 / 8), atol=1e-5)


def _b64(data):
    return {"b64": base64.b64encode(data).decode()}


ROW = IMAGES[0].tolist()
BYTES = "serving_bytes"


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("none:predict", {"instances": [1]}, 404, "Servable not found for request: Latest(none)"),
        ("tiny/versions/9:predict", {"instances": [1]}, 404, "Specific(tiny, 9)"),
        ("tiny/labels/l:predict", {"instances": [1]}, 400, "Unrecognized servable version label"),
        ("tiny:predict", {"signature_name": "s", "instances": [1]}, 400, '"s" not found'),
        ("tiny:predict", b"", 400, "JSON Parse error: "),
        ("tiny:predict", b"{x", 400, "JSON Parse error: "),
        ("tiny:predict", b'{"instances": x}', 400, "JSON Parse error: "),
        ("tiny:predict", {}, 400, "Missing 'inputs' or 'instances' key"),
        ("tiny:predict", {"inputs": [1], "instances": [1]}, 400, "only one of 'inputs' or"),
        ("tiny:predict", {"instances": ["x"]}, 400, "is not of expected type: float"),
        ("tiny:predict", {"instances": [True]}, 400, "is not of expected type: float"),
        ("tiny:predict", {"instances": [None]}, 400, "is not of expected type: float"),
        ("tiny:predict", {"instances": [2**24 + 1]}, 400, "without loss of precision"),
        ("tiny:predict", {"inputs": {"x": 1}}, 400, "Missing named input: images"),
        (
            "tiny:predict",
            {"signature_name": BYTES, "instances": [{"b64": "*"}]},
            400,
            "Unable to base64 decode",
        ),
        (
            "tiny:predict",
            {"signature_name": BYTES, "instances": [_b64(b"no image")]},
            400,
            "Unknown image file format",
        ),
        ("tiny:predict", {"instances": [ROW[:7]]}, 400, "is not compatible with expected shape"),
        (
            "tiny:classify",
            {"examples": [{"a": 1}]},
            400,
            "No classification inputs found in SignatureDef",
        ),
        ("tiny:unknown", {}, 400, "Malformed request: POST /v1/models/tiny:unknown"),
    ],
)
def test_refused_over_rest(target, path, body, status, message):
    _refused_over_rest(target.post(f"/v1/models/{path}", body), status, message)


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("predict", b"[1]"),
        ("predict", {"instances": []}),
        ("predict", {"instances": {}}),
        ("predict", {"instances": [[1.0], [1.0, 2.0]]}),
        ("predict", {"instances": [[[1.0], [1.0]], [[1.0, 2.0]]]}),
        ("predict", {"inputs": [[1.0], [1.0, 2.0]]}),
        ("predict", {"inputs": [[1.0], 1.0]}),
        ("predict", {"inputs": [1.0, [1.0]]}),
        ("predict", {"inputs": []}),
        ("predict", {"instances": [{"x": 1}]}),
        ("predict", {"instances": [{"images": 1.0}, 1]}),
        ("predict", {"instances": [1, {"images": 1.0}]}),
        ("predict", {"signature_name": 1}),
        ("predict", {"signature_name": "similarity", "instances": [[1.0]]}),
        ("predict", {"signature_name": "similarity", "inputs": [[1.0]]}),
        ("predict", {"signature_name": "similarity", "instances": [{"left": [1.0, 1.0]}]}),
        ("predict", {"signature_name": BYTES, "inputs": {"image_bytes": [{"b65": ""}]}}),
        ("classify", {}),
        ("classify", {"examples": []}),
        ("classify", {"examples": [1]}),
        ("regress", {"examples": [{"a": [1, "x"]}]}),
        ("regress", {"examples": [{"a": None}]}),
    ],
)
def test_bodies_that_do_not_fit(target, method, body):
    _refused_over_rest(target.post(f"/v1/models/tiny:{method}", body), 400)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("/v1/models", 400, "Missing model name in request."),
        ("/v1/models/none", 404, "Could not find any versions of model none"),
        ("/v1/models/tiny/versions/9", 404, "Could not find version 9 of model tiny"),
        ("/v1/models/none/metadata", 404, "Servable not found for request: Latest(none)"),
        ("/v1/models/tiny:predict", 400, "Malformed request: GET /v1/models/tiny:predict"),
        ("/v1/models/tiny/versions/" + "9" * 30, 400, "Failed to convert version"),
    ],
)
def test_refused_looks_over_rest(target, path, status, message):
    _refused_over_rest(target.get(path), status, message)


def test_metadata(target):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=_spec(), metadata_field=["signature_def"]
    )
    response = target.prediction.GetModelMetadata(request, timeout=30)
    assert response.model_spec == _spec(version=2)
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    assert found.signature_def["similarity"].inputs["left"].dtype == tf.float32
    over_rest = target.get("/v1/models/tiny/metadata").json()
    assert over_rest["model_spec"] == {"name": "tiny", "signature_name": "", "version": "2"}
    signatures = over_rest["metadata"]["signature_def"]["signature_def"]
    assert set(signatures) == set(found.signature_def)
    assert signatures["similarity"]["inputs"]["left"]["dtype"] == "DT_FLOAT"
    assert (
        target.get("/v1/models/tiny/labels/stable/metadata").json()["model_spec"]["version"] == "1"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "must specify at least one metadata_field"),
        (["x"], "x is not supported"),
    ],
)
def test_refused_metadata(target, fields, message):
    request = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec=_spec(), metadata_field=fields
    )
    _refused(target.prediction.GetModelMetadata, request, INVALID, message)
    request.ClearField("model_spec")
    _refused(target.prediction.GetModelMetadata, request, INVALID, "Missing ModelSpec")


def test_status(target):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=_spec())
    found = target.models.GetModelStatus(request, timeout=30).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert sorted((v.version, v.state) for v in found) == [(1, available), (2, available)]
    over_rest = target.get("/v1/models/tiny/versions/1").json()
    status = {"error_code": "OK", "error_message": ""}
    assert over_rest == {
        "model_version_status": [{"version": "1", "state": "AVAILABLE", "status": status}]
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (_spec("none"), "Could not find any versions of model none"),
        (_spec(version=9), "Could not find version 9 of model tiny"),
    ],
)
def test_refused_status(target, spec, message):
    request = get_model_status_pb2.GetModelStatusRequest(model_spec=spec)
    _refused(target.models.GetModelStatus, request, NOT_FOUND, message)


def test_status_without_model_spec(target):
    request = get_model_status_pb2.GetModelStatusRequest()
    _refused(target.models.GetModelStatus, request, INVALID, "Missing ModelSpec")


def _example(**values):
    features = {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def _with_examples(kind, spec, *examples, context=None):
    request = kind(model_spec=spec) if spec is not None else kind()
    if context is None:
        request.input.example_list.examples.extend(examples)
    else:
        request.input.example_list_with_context.context.CopyFrom(context)
        request.input.example_list_with_context.examples.extend(examples)
    return request


def test_classify(target):
    spec = _spec(signature="classify")
    request = _with_examples(classification_pb2.ClassificationRequest, spec, _example(a=1))
    response = target.prediction.Classify(request, timeout=30)
    length = len(_example(a=1).SerializeToString())
    (found,) = response.result.classifications
    assert [(c.label, c.score) for c in found.classes] == [("a", length), ("b", -length)]
    assert response.model_spec == _spec(version=2, signature="classify")
    body = {"signature_name": "classify", "examples": [{"a": 1}]}
    over_rest = target.post("/v1/models/tiny:classify", body).json()
    assert over_rest == {"results": [[["a", float(length)], ["b", -float(length)]]]}


def test_regress(target):
    spec = _spec(signature="regress")
    examples = _example(a=1), _example()
    request = _with_examples(regression_pb2.RegressionRequest, spec, *examples)
    lengths = [len(example.SerializeToString()) for example in examples]
    response = target.prediction.Regress(request, timeout=30)
    assert [found.value for found in response.result.regressions] == lengths
    context = _example(b=1)
    request = _with_examples(regression_pb2.RegressionRequest, spec, *examples, context=context)
    (found, _) = target.prediction.Regress(request, timeout=30).result.regressions
    assert found.value == lengths[0] + len(context.SerializeToString())
    for value in (1, True, [1]):
        body = {"signature_name": "regress", "examples": [{"a": value}]}
        found = target.post("/v1/models/tiny:regress", body).json()
        assert found == {"results": [float(lengths[0])]}


def _multi_request(*signatures, name="examples"):
    request = _with_examples(inference_pb2.MultiInferenceRequest, None, _example(a=1))
    for signature in signatures:
        method = f"tensorflow/serving/{signature}"
        request.tasks.add(model_spec=_spec(name, signature=signature), method_name=method)
    return request


def test_multi_inference(target):
    response = target.prediction.MultiInference(_multi_request("classify", "regress"), timeout=30)
    length = len(_example(a=1).SerializeToString())
    classified, regressed = response.results
    assert classified.classification_result.classifications[0].classes[0].score == length
    assert regressed.regression_result.regressions[0].value == length
    assert regressed.model_spec == _spec("examples", version=1, signature="regress")


@pytest.mark.parametrize(
    ("request_", "code", "message"),
    [
        (_multi_request("regress", "regress"), INVALID, "Duplicate evaluation of signature"),
        (
            _multi_request("classify", "regress", name="tiny"),
            INVALID,
            "Input tensor must be the same",
        ),
        (_multi_request("x"), INVALID, "Requested signature not found in model graph: x"),
        (_multi_request(), INVALID, "ModelSpec has no name specified."),
    ],
)
def test_refused_multi_inference(target, request_, code, message):
    _refused(target.prediction.MultiInference, request_, code, message)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("", "No classification inputs found in SignatureDef"),
        ("x", "No signature was found with the name: x"),
        ("types", "Expected one input Tensor."),
    ],
)
def test_refused_classify(target, signature, message):
    spec = _spec(signature=signature)
    request = _with_examples(classification_pb2.ClassificationRequest, spec, _example(a=1))
    _refused(target.prediction.Classify, request, INVALID, message)


def test_classify_without_examples_or_model(target):
    request = _with_examples(classification_pb2.ClassificationRequest, _spec(signature="classify"))
    _refused(target.prediction.Classify, request, INVALID, "Input is empty")
    request.ClearField("model_spec")
    _refused(target.prediction.Classify, request, INVALID, "Missing ModelSpec")


def _reload_request(folder, change):
    config = served_models.config(folder)
    change(config.model_config_list.config)
    return model_management_pb2.ReloadConfigRequest(config=config)


def _relative(models):
    models[0].base_path = "tiny"


def _unavailable(models):
    models[0].version_labels["stable"] = 9


def _platform(models):
    models[0].model_platform = "other"


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda models: models.add().CopyFrom(models[0]), INVALID, "Illegal to list model tiny"),
        (_relative, INVALID, "absolute path"),
        (_platform, INVALID, "Illegal to change a model's platform"),
        (
            _unavailable,
            grpc.StatusCode.FAILED_PRECONDITION,
            "not currently available for inference",
        ),
    ],
    ids=["twice", "relative", "platform", "label"],
)
def test_refused_reload_changes_nothing(target, change, code, message):
    request = _reload_request(target.folder, change)
    _refused(target.models.HandleReloadConfigRequest, request, code, message)
    for label, version in (("stable", 1), ("canary", 2)):
        response = target.prediction.Predict(_predict_request(_spec(label=label)), timeout=30)
        assert response.model_spec.version.value == version


def test_reload_without_models(target):
    request = model_management_pb2.ReloadConfigRequest()
    _refused(target.models.HandleReloadConfigRequest, request, INVALID, "ModelConfigList")


def _await_absence(target, model):
    """A reload waits for models that come, and not for those that go."""
    end = time.monotonic() + 30
    while target.get(f"/v1/models/{model}/metadata").status_code != 404:
        assert time.monotonic() < end, f"{model} is still served."
        time.sleep(0.05)


def test_reload_moves_labels_and_adds_models(target):
    def change(models):
        models[0].version_labels["stable"] = 2
        models.add(name="more", base_path=f"{target.folder}/examples", model_platform="tensorflow")

    try:
        request = _reload_request(target.folder, change)
        response = target.models.HandleReloadConfigRequest(request, timeout=30)
        assert response.status.error_code == 0
        found = target.prediction.Predict(_predict_request(_spec(label="stable")), timeout=30)
        assert found.model_spec.version.value == 2
        assert target.get("/v1/models/more/metadata").status_code == 200  # It was waited for.
    finally:
        request = _reload_request(target.folder, lambda models: None)
        target.models.HandleReloadConfigRequest(request, timeout=30)
    _await_absence(target, "more")
    found = target.prediction.Predict(_predict_request(_spec(label="stable")), timeout=30)
    assert found.model_spec.version.value == 1
