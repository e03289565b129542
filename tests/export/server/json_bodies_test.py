"""JSON bodies: what is read, what is refused and in which words, and how answers are written."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import classification_pb2, regression_pb2

from export.server import Limits, errors, json_bodies

LIMITS = Limits()


def _definition(**types):
    definition = meta_graph_pb2.SignatureDef()
    for alias, dtype in types.items():
        definition.inputs[alias].dtype = tf.as_dtype(dtype).as_datatype_enum
    return definition


def _refused(function, *args, **kwargs):
    with pytest.raises(errors.ServingError) as caught:
        function(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"  ", "JSON Parse error: Expecting value: line 1 column 3 (char 2)"),
        (b'{"a": [1 2]}', "JSON Parse error: Expecting ',' delimiter: line 1 column 10 (char 9)"),
        (b"{} {}", "JSON Parse error: Extra data"),
        (b'{"a": "\xff"}', "JSON Parse error: 'utf-8' codec can't decode"),
        (b'{"a": ' + b"[" * 50_000, "JSON Parse error: maximum recursion depth"),
        (b'{"a": ' + b"1" * 5000 + b"}", "JSON Parse error: Exceeds the limit"),
        (b"[1]", "The body must be a JSON object; found [1]."),
        (b'"a"', 'The body must be a JSON object; found "a".'),
        (b'{"signature_name": 1}', "'signature_name' must be a string; found 1."),
        (rb'{"signature_name": "\ud800"}', r'"\ud800" is not text: surrogates not allowed.'),
    ],
    ids=range(10),
)
def test_bodies_that_are_no_documents(body, message):
    assert _refused(json_bodies.parse, body, LIMITS).message.startswith(message)


def test_long_values_are_cut_in_messages():
    error = _refused(json_bodies.parse, b"[" + b"1," * 10_000 + b"1]", LIMITS)
    assert len(error.message) < 600


@pytest.mark.parametrize("value", [b"1", b"[]", b"{}", b'"a"', b"[[1]]"])
def test_values_are_counted_before_they_are_read(monkeypatch, value):
    body = b'{"a": [' + b",".join([value] * 1000) + b"]}"
    monkeypatch.delattr(json, "loads")
    error = _refused(json_bodies.parse, body, Limits(max_elements=1000))
    assert "larger than the 1000 allowed" in error.message and isinstance(error, errors.TooLarge)


def test_documents():
    document, signature = json_bodies.parse(b'\xef\xbb\xbf{"a": [NaN, Infinity], "b": 1}', LIMITS)
    assert document["a"][1] == float("inf") and document["b"] == 1 and signature == ""
    assert json_bodies.parse(b'{"signature_name": "s"}', LIMITS)[1] == "s"


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([[1], [2.5]], np.float32, [[1.0], [2.5]]),
        (2**24 - 1, np.float32, 2**24 - 1),
        ([1e30, float("nan"), float("-inf"), -1e-50], np.float32, [1e30, np.nan, -np.inf, 0.0]),
        ([2**53 - 1, 0.1], np.float64, [2**53 - 1, 0.1]),
        ([0, 255], np.uint8, [0, 255]),
        ([-(2**63), 2**63 - 1], np.int64, [-(2**63), 2**63 - 1]),
        ([2**64 - 1], np.uint64, [2**64 - 1]),
        ([[], []], np.int32, np.zeros((2, 0))),
        ([[True], [False]], np.bool_, [[True], [False]]),
    ],
)
def test_values(value, dtype, expected):
    found, in_rows = json_bodies.inputs({"inputs": value}, _definition(x=dtype))
    np.testing.assert_array_equal(found["x"], np.array(expected, dtype))
    assert found["x"].dtype == dtype and not in_rows


def test_strings_are_text_or_base64():
    value = ["a", {"b64": "YQ=="}, {"b64": " Y\nQ "}, "\u00e9"]
    found, _ = json_bodies.inputs({"inputs": value}, _definition(x=tf.string))
    assert found["x"].tolist() == [b"a", b"a", b"a", b"\xc3\xa9"]


def test_rows():
    definition = _definition(x=tf.int32, y=tf.string)
    rows = [{"x": [1, 2], "y": "a"}, {"x": [3, 4], "y": {"b64": "YQ=="}}]
    found, in_rows = json_bodies.inputs({"instances": rows}, definition)
    assert in_rows
    np.testing.assert_array_equal(found["x"], [[1, 2], [3, 4]])
    assert found["y"].tolist() == [b"a", b"a"]
    for rows in ([1, 2], [{"x": 1}, {"x": 2}]):
        found, _ = json_bodies.inputs({"instances": rows}, _definition(x=tf.int32))
        assert found["x"].tolist() == [1, 2]


ONE, TWO = _definition(x=tf.float32), _definition(x=tf.float32, y=tf.float32)


@pytest.mark.parametrize(
    ("document", "definition", "message"),
    [
        ({"instances": [1]}, _definition(), "The signature has no inputs"),
        ({"instances": [1], "inputs": 1}, ONE, "Expecting only one of 'inputs' or 'instances'"),
        ({}, ONE, "Missing 'inputs' or 'instances' key"),
        ({"instances": []}, ONE, "'instances' must be a list of at least one element; found []."),
        ({"instances": {}}, ONE, "'instances' must be a list of at least one element; found {}."),
        (
            {"instances": [{"x": 1, "y": 2}, {"x": 1}]},
            TWO,
            "Element 1 of 'instances' must be an object with the keys x, y; found {\"x\": 1}.",
        ),
        ({"instances": [[1.0]]}, TWO, "Element 0 of 'instances' must be an object"),
        ({"instances": [{"x": 1}, 1]}, ONE, "Element 1 of 'instances' must be an object"),
        ({"instances": [1, {"x": 1}]}, ONE, "Element 0 of 'instances' must be an object"),
        ({"instances": [{"z": 1}]}, ONE, 'the keys x; found {"z": 1}.'),
        ({"inputs": [1]}, TWO, "Missing named input: y. 'inputs' must be an object with the"),
        ({"inputs": {"z": 1}}, ONE, "Missing named input: x."),
        ({"instances": [[1], [1, 2]]}, ONE, "Input x is ragged: in dimension 1"),
        ({"instances": [[[1], [1]], [[1, 2]]]}, ONE, "Input x is ragged: in dimension 1"),
        ({"inputs": [[1], 1]}, ONE, "Input x is ragged: in dimension 1"),
        ({"inputs": [1, [1]]}, ONE, "x: JSON Value: [1] is not of expected type: float32"),
        ({"inputs": [True]}, ONE, "x: JSON Value: true is not of expected type: float32"),
        ({"inputs": 2**24}, ONE, "16777216 is not float32 without loss of precision"),
        ({"inputs": [float("nan"), 1e39]}, ONE, "1e+39 is not float32 without loss of precision"),
        ({"inputs": 10**400}, ONE, "is not float32 without loss of precision"),
        ({"inputs": 2**53}, _definition(x=tf.float64), "is not float64 without loss"),
        ({"inputs": 256}, _definition(x=tf.uint8), "256 is not uint8 without loss of precision"),
        ({"inputs": 1.0}, _definition(x=tf.int64), "1.0 is not of expected type: int64"),
        ({"inputs": 1}, _definition(x=tf.bool), "1 is not of expected type: bool"),
        ({"inputs": 1}, _definition(x=tf.string), "1 is not of expected type: string"),
        ({"inputs": {"x": {"b65": ""}}}, _definition(x=tf.string), 'is not {"b64": "..."}'),
        ({"inputs": {"b64": "*"}}, _definition(x=tf.string), "Unable to base64 decode"),
        ({"inputs": "\ud800"}, _definition(x=tf.string), "is not text: surrogates"),
    ],
)
def test_inputs_that_do_not_fit(document, definition, message):
    error = _refused(json_bodies.inputs, document, definition)
    assert message in error.message and error.code.name == "INVALID_ARGUMENT"


def test_inputs_that_cannot_be_read():
    nested = 1.0
    for _ in range(65):
        nested = [nested]
    error = _refused(json_bodies.inputs, {"inputs": nested}, ONE)
    assert error.message == "Input x has more than 64 dimensions."
    error = _refused(json_bodies.inputs, {"inputs": 1}, _definition(x=tf.complex64))
    assert error.code.name == "UNIMPLEMENTED" and "complex64" in error.message


def test_examples():
    features = {"i": [1, True], "f": 0.5, "s": ["a", {"b64": "YQ=="}], "none": []}
    found = json_bodies.examples({"examples": [features], "context": {"c": 1}})
    (example,) = found.example_list_with_context.examples
    assert list(found.example_list_with_context.context.features.feature) == ["c"]
    feature = example.features.feature
    assert list(feature["i"].int64_list.value) == [1, 1]
    assert list(feature["f"].float_list.value) == [0.5]
    assert list(feature["s"].bytes_list.value) == [b"a", b"a"]
    assert feature["none"].WhichOneof("kind") is None


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "'examples' must be a list of at least one object; found null."),
        ({"examples": []}, r"'examples' must be a list of at least one object; found \[\]."),
        ({"examples": [1]}, "An example must be a JSON object; found 1."),
        ({"examples": [{}], "context": 1}, "An example must be a JSON object; found 1."),
        ({"examples": [{"a": [1, "x"]}]}, 'Feature a must hold strings, or .*found .1, "x".'),
        ({"examples": [{"a": [1, 0.5]}]}, "Feature a must hold"),
        ({"examples": [{"a": None}]}, "Feature a must hold .*found null."),
        ({"examples": [{"a": [[1]]}]}, "Feature a must hold"),
        ({"examples": [{"a": {"b": 1}}]}, "base64"),
        ({"examples": [{"a": 2**63}]}, "is not int64 without loss"),
        ({"examples": [{"a": 1e300}]}, r"1e\+300 is not float32 without loss"),
    ],
)
def test_examples_that_are_none(document, message):
    with pytest.raises(errors.ServingError, match=message):
        json_bodies.examples(document)


def _columns(**outputs):
    return json_bodies.predictions(outputs, in_rows=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decimals_read_back_as_the_same_floats(dtype):
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(dtype)
    values *= 10.0 ** np.random.default_rng(1).integers(-30, 30, (40, 1))
    found = json.loads(_columns(x=values))["outputs"]
    np.testing.assert_array_equal(np.array(found, dtype), values)
    assert all(isinstance(value, float) for row in found for value in row)


def test_decimals_are_short():
    values = np.float32([0.1, 0.2, 1, 1e-5, np.nan, np.inf, -np.inf])
    expected = '{"outputs": [0.1, 0.2, 1.0, 1e-05, NaN, Infinity, -Infinity]}'
    assert _columns(x=values) == expected


def test_scalars_integers_and_bool():
    outputs = {"a": np.int64(-3), "b": np.array([[True], [False]]), "c": np.zeros((2, 0))}
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    assert _columns(**arrays) == '{"outputs": {"a": -3, "b": [[true], [false]], "c": [[], []]}}'


def test_strings_in_rows():
    names = np.array([b'a"b', "\u00e9".encode(), b"\xff"], object)
    text = json_bodies.predictions({"names": names, "names_bytes": names}, in_rows=True)
    found = json.loads(text)["predictions"]
    assert [row["names"] for row in found] == ['a"b', "\u00e9", "\ufffd"]
    assert found[2]["names_bytes"] == {"b64": "/w=="}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"x": np.float32(1)}, r"first dimension of at least 1; found x \[\]. Send 'inputs'"),
        ({"x": np.zeros((0, 2))}, r"found x \[0, 2\]"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, r"found x \[2\], y \[3\]"),
        ({"x": np.zeros(2, np.complex64)}, "Output x is complex64, which JSON cannot carry"),
        ({"x": np.zeros(2, np.float16)}, "Output x is float16"),
    ],
)
def test_what_has_no_rows(outputs, message):
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    with pytest.raises(errors.ServingError, match=message):
        json_bodies.predictions(arrays, in_rows=True)


def test_classes_and_regressions():
    response = classification_pb2.ClassificationResponse()
    response.result.classifications.add().classes.add(label="\u00e9", score=0.1)
    assert json.loads(json_bodies.classifications(response)) == {"results": [[["\u00e9", 0.1]]]}
    response = regression_pb2.RegressionResponse()
    response.result.regressions.add(value=0.1)
    assert json_bodies.regressions(response) == '{"results": [0.1]}'
