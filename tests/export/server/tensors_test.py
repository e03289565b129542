"""TensorProto and arrays, held against TensorFlow's own C++ reader."""

import hypothesis
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2

from export.server import errors, tensors
from tests import tensor_protos

LIMIT = 1 << 20
TYPES = [np.float32, np.float64, np.int32, np.int16, np.int8, np.uint16, np.uint8, np.int64]
TYPES += [np.bool_, np.uint32, np.uint64, np.float16, ml_dtypes.bfloat16, np.complex64]
TYPES += [np.complex128]
SUPPORTED = {tf.as_dtype(dtype).as_datatype_enum for dtype in [*TYPES, np.object_]}


def _read(proto):
    return tensors.to_array(proto, max_bytes=LIMIT)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3)])
def test_there_and_back(dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)) % 2 + 1).astype(dtype).reshape(shape)
    proto = tensors.to_proto(array)
    assert not proto.tensor_content
    for found in (_read(proto), _read(tf.make_tensor_proto(array)), tf.make_ndarray(proto)):
        assert found.dtype == array.dtype and found.shape == array.shape
        np.testing.assert_array_equal(found, array)


def test_strings_there_and_back():
    array = np.array([[b"a", b""], [b"\x00\xff\x00", b"long" * 100]], object)
    in_content = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING)
    in_content.tensor_shape.CopyFrom(tensors.to_proto(array).tensor_shape)
    in_content.tensor_content = b"\x01\x00\x03\x90\x03" + b"".join(array.ravel())
    np.testing.assert_array_equal(_oracle(in_content), array)
    for proto in (tensors.to_proto(array), in_content):
        np.testing.assert_array_equal(_read(proto), array)


def test_content_is_not_copied():
    content = np.arange(6, dtype=np.float32).tobytes()
    proto = tensor_pb2.TensorProto(dtype=1, tensor_content=content)
    proto.tensor_shape.dim.add(size=6)
    assert not _read(proto).flags.owndata


@pytest.mark.parametrize("fields", [{"float_val": [1.0]}, {"tensor_content": b"\0" * 4}, {}])
def test_a_small_message_cannot_ask_for_a_large_array(fields):
    proto = tensor_pb2.TensorProto(dtype=1, **fields)
    proto.tensor_shape.dim.add(size=2**40)
    with pytest.raises(errors.ServingError, match="larger than the 1048576 allowed"):
        _read(proto)


def _oracle(proto):
    """What TensorFlow's C++ makes of it; None if nothing."""
    try:
        return tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    except (tf.errors.OpError, TypeError, AttributeError):
        return None


@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(tensor_protos.protos())
def test_reads_what_tensorflow_reads(proto):
    try:
        found = _read(proto)
    except ValueError:
        found = None
    expected = _oracle(proto)
    if proto.dtype in SUPPORTED:
        assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found, expected)
