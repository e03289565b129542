"""TensorProto and arrays, held against TensorFlow's own C++ reader."""

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from export.server import Limits, errors, inference
from tests import tensor_protos

LIMITS = Limits(max_bytes=1 << 20)
TYPES = [np.float32, np.float64, np.int32, np.int16, np.int8, np.uint16, np.uint8, np.int64]
TYPES += [np.bool_, np.uint32, np.uint64, np.float16, ml_dtypes.bfloat16, np.complex64]
TYPES += [np.complex128]


def _read(proto):
    return inference.from_proto(proto, limits=LIMITS)


def _proto(*shape, dtype=types_pb2.DT_FLOAT, **fields):
    proto = tensor_pb2.TensorProto(dtype=dtype, **fields)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_there_and_back(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2 + 1).astype(dtype).reshape(shape)
    proto = inference.to_proto(array)
    assert not proto.tensor_content
    for found in (_read(proto), _read(tf.make_tensor_proto(array)), tf.make_ndarray(proto)):
        assert found.dtype == array.dtype and found.shape == array.shape
        np.testing.assert_array_equal(found, array)


def test_strings_there_and_back():
    array = np.array([[b"a", b""], [b"\x00\xff\x00", b"long" * 100]], object)
    np.testing.assert_array_equal(_read(inference.to_proto(array)), array)


def test_content_is_not_copied():
    content = np.arange(6, dtype=np.float32).tobytes()
    assert not _read(_proto(6, tensor_content=content)).flags.owndata


@pytest.mark.parametrize("fields", [{"float_val": [1.0]}, {"tensor_content": b"\0" * 4}, {}])
@pytest.mark.parametrize("shape", [(2**40,), (65536, 32, 32, 1)])
def test_a_small_message_cannot_ask_for_a_large_array(monkeypatch, shape, fields):
    monkeypatch.delattr(tf.io, "parse_tensor")  # It would allocate.
    with pytest.raises(
        errors.TooLarge, match="larger than the (1048576|33554432) allowed"
    ) as caught:
        _read(_proto(*shape, **fields))
    assert caught.value.code.name == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize(
    ("shape", "string", "message"),
    [
        ((2**16,), b"", "1572864 bytes"),  # What TensorFlow needs for an empty one, each.
        ((2**10,), b"a" * 2**10, "1073152 bytes"),
        ((2**26,), b"", "67108864 elements"),
    ],
)
def test_one_string_cannot_ask_for_many(monkeypatch, shape, string, message):
    monkeypatch.delattr(tf.io, "parse_tensor")
    with pytest.raises(errors.TooLarge, match=f"A tensor of {message} is larger than"):
        _read(_proto(*shape, dtype=types_pb2.DT_STRING, string_val=[string]))


def test_values_are_read_about_as_fast_as_bytes(monkeypatch):
    def slow(proto):
        raise AssertionError("It takes 60 ns or more a value, TensorFlow 10.")

    monkeypatch.setattr(tf, "make_ndarray", slow)
    for dtype in TYPES:
        array = np.ones([2, 3], dtype)
        np.testing.assert_array_equal(_read(inference.to_proto(array)), array)


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (_proto(2, dtype=0, float_val=[1.0]), "no tensor can be read of dtype 0"),
        (_proto(2, dtype=99, float_val=[1.0]), "of dtype 99"),
        (_proto(2, dtype=types_pb2.DT_RESOURCE), "of dtype 20"),
        (_proto(2, dtype=types_pb2.DT_QINT8, int_val=[1]), "of dtype 11"),
        (_proto(2, dtype=types_pb2.DT_FLOAT_REF, float_val=[1.0]), "of dtype 101"),
        (_proto(-1, 2, float_val=[1.0]), r"no tensor has shape \[-1, 2\]"),
        (_proto(2**32, 2**32, float_val=[1.0]), "no tensor has shape"),
        (_proto(*[1] * 200, float_val=[1.0]), "no tensor has 200 dimensions; 64 is the most"),
        (_proto(*[2**62] * 100_000, float_val=[1.0]), "no tensor has 100000 dimensions"),
        (_proto(0, 2**32, 2**32), "no tensor has shape"),
        (_proto(2, float_val=[1.0, 2.0, 3.0]), "3 values for the 2 elements"),
        (_proto(2, tensor_content=b"\0" * 4), "cannot reshape"),
        (_proto(2, tensor_content=b"\0" * 9), "buffer size must be a multiple"),
        (_proto(2, dtype=types_pb2.DT_INT8, int_val=[300]), "out of bounds for int8"),
        (_proto(2, dtype=types_pb2.DT_UINT16, int_val=[-1]), "out of bounds for uint16"),
        (_proto(2, dtype=types_pb2.DT_HALF, half_val=[1 << 16]), "out of bounds for float16"),
        (
            _proto(1, dtype=types_pb2.DT_STRING, tensor_content=b"\1a"),
            "strings must be in string_val",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_messages_that_are_no_tensors(proto, message):
    with pytest.raises((ValueError, OverflowError), match=message):
        _read(proto)


def _oracle(proto):
    """What TensorFlow's C++ makes of it; None if nothing."""
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    except (tf.errors.OpError, TypeError, AttributeError):
        return None


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(tensor_protos.protos())
def test_what_is_read_is_what_tensorflow_reads(proto):
    try:
        found = _read(proto)
    except (ValueError, OverflowError):
        return  # Also values that do not fit their type, or are too many; TensorFlow drops bits.
    if found.dtype == object:
        found = np.array([tf.compat.as_bytes(v) for v in found.ravel()], object).reshape(
            found.shape
        )
    np.testing.assert_array_equal(found, _oracle(proto))
