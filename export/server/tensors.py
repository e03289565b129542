"""TensorProto to array and back, as TensorFlow's C++ reads and writes it, with few copies."""

import math

import grpc
import ml_dtypes
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from export.server import errors

__all__ = ["MAX_RANK", "to_array", "to_proto"]

MAX_RANK = 254  # TensorShape holds no more.
_LARGEST = 2**63 - 1
_INT_VALUES = (np.int32, np.int16, np.int8, np.uint16, np.uint8)
_FIELDS = {
    np.dtype(dtype): field
    for dtypes, field in (
        ((np.float32,), "float_val"),
        ((np.float64,), "double_val"),
        (_INT_VALUES, "int_val"),
        ((np.int64,), "int64_val"),
        ((np.bool_,), "bool_val"),
        ((np.uint32,), "uint32_val"),
        ((np.uint64,), "uint64_val"),
        ((np.float16, ml_dtypes.bfloat16), "half_val"),
        ((np.complex64,), "scomplex_val"),
        ((np.complex128,), "dcomplex_val"),
        ((np.object_,), "string_val"),
    )
    for dtype in dtypes
}
# The first byte of a packed field on the wire: its number and "length-delimited".
_PACKED = {np.dtype(np.float32): b"\x2a", np.dtype(np.float64): b"\x32"}


def to_array(proto, *, max_bytes):
    """The array in a TensorProto; it shares the memory of `tensor_content`.

    Fewer values than elements are filled up with the last one, as TensorFlow does it: a small
    message can ask for a large array, so that has a limit.

    Args:
        proto: `TensorProto`.
        max_bytes: int, the largest array to make.

    Returns:
        array; strings as bytes objects.

    Raises:
        ValueError: the message is not a tensor.
        errors.ServingError: RESOURCE_EXHAUSTED, the array would be larger than allowed.
    """
    dtype, shape = _dtype(proto), _shape(proto)
    count = math.prod(shape)
    if count * dtype.itemsize > max_bytes:
        raise errors.ServingError(
            f"A tensor of {count * dtype.itemsize} bytes is larger than the {max_bytes} allowed.",
            code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        )
    content = proto.tensor_content
    if not content or not count:
        return _from_values(proto, dtype, count).reshape(shape)
    if dtype == np.object_:
        return _strings(content, count).reshape(shape)
    return np.frombuffer(content, dtype).reshape(shape)  # ValueError if the size is wrong.


def to_proto(array):
    """The TensorProto of an array, its values in the field of its type, as TF Serving sends them.

    Args:
        array: numpy array as a session returns it; strings as bytes objects.

    Returns:
        `TensorProto`.

    Example:
        >>> list(to_proto(np.float32([1.5, 2])).float_val)
        [1.5, 2.0]
    """
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(array.dtype).as_datatype_enum)
    proto.tensor_shape.SetInParent()  # A scalar has a shape as well.
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if not array.size:
        return proto
    if array.dtype in _PACKED:  # Without a Python object for each of thousands of floats.
        values = array.tobytes()
        proto.MergeFromString(_PACKED[array.dtype] + _varint(len(values)) + values)
    else:
        getattr(proto, _FIELDS[array.dtype]).extend(_values(array).tolist())
    return proto


def _values(array):
    if array.dtype.kind == "c":
        return array.ravel().view(array.real.dtype)
    if _FIELDS[array.dtype] == "half_val":
        return array.ravel().view(np.uint16)
    return array.ravel()


def _dtype(proto):
    """The numpy type; ValueError if no array can hold it."""
    try:
        found = tf.dtypes.as_dtype(proto.dtype)
        dtype = np.dtype(found.as_numpy_dtype)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no such type: {proto.dtype}") from error
    is_object = dtype == np.object_
    if dtype not in _FIELDS or is_object != (found == tf.string) or found != found.base_dtype:
        raise ValueError(f"type without values: {found}")
    return dtype


def _shape(proto):
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if len(shape) > MAX_RANK or min(shape, default=0) < 0:
        raise ValueError("not a full shape")
    if math.prod(shape) > _LARGEST:
        raise ValueError("too many elements")
    return shape


def _from_values(proto, dtype, count):
    """`count` elements from the field of the type; the last value stands for those missing."""
    field = getattr(proto, _FIELDS[dtype])
    if dtype == np.object_:
        values = np.empty(len(field), object)
        values[:] = list(field)
        missing = values[-1] if len(values) else b""
    else:
        values = _numbers(field, dtype)
        missing = values[-1] if len(values) else 0
    filled = np.full(count, missing, dtype)
    filled[: len(values)] = values[:count]
    return filled


def _numbers(field, dtype):
    """Numbers wrap around as in C++ where they do not fit the type."""
    if dtype.kind == "c":
        pairs = np.array(field, dtype.type(0).real.dtype)
        return pairs[: len(pairs) // 2 * 2].view(dtype)
    if _FIELDS[dtype] == "half_val":
        return np.array(field, np.int64).astype(np.uint16).view(dtype)
    if _FIELDS[dtype] == "int_val":
        return np.array(field, np.int32).astype(dtype)
    return np.array(field, dtype)


def _strings(content, count):
    """Strings as `tensor_content` holds them: all lengths, then all bytes."""
    lengths, at = [], 0
    for _ in range(min(count, len(content))):
        length, at = _read_varint(content, at)
        lengths.append(length)
    if len(lengths) != count or at + sum(lengths) != len(content):
        raise ValueError("lengths do not add up")
    found = np.empty(count, object)
    for index, length in enumerate(lengths):
        found[index] = content[at : at + length]
        at += length
    return found


def _read_varint(content, at):
    value = shift = 0
    while shift < 35 and at < len(content):
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("no varint")


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
