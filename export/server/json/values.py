"""JSON values to arrays and strings of exactly the type that is asked for."""

import base64
import binascii
import itertools
import json
import re

import grpc
import numpy as np
import tensorflow as tf

from export.server import errors

__all__ = [
    "array",
    "check_values",
    "encoded",
    "format_error",
    "is_object",
    "shown",
    "to_bytes",
    "type_name",
]

_SHOWN = 512  # Characters of a value in an error message.
_MAX_RANK = 64  # NumPy has no more dimensions.
_INTEGERS = (tf.int32, tf.int16, tf.int8, tf.uint8, tf.int64, tf.uint32, tf.uint64)
_TYPES = {  # What the elements of a tensor of the type may be; bool is no number here.
    tf.float32: {int, float},
    tf.float64: {int, float},
    tf.string: {str, dict},
    tf.bool: {bool},
    **dict.fromkeys(_INTEGERS, {int}),
}
_NAMES = {list: "Array", dict: "Object", str: "String", int: "Number", float: "Number"}


def array(value, dtype):
    """A value, or nested lists of values, as an array.

    Args:
        value: what the JSON parser made of a value.
        dtype: `tf.DType`; numbers are not made to fit, and bool is no number.

    Returns:
        array of the type; strings as bytes objects.

    Raises:
        errors.ServingError: a value is of another type, or the lists are ragged.

    Example:
        >>> array([[1], [2.5]], tf.float32).shape
        (2, 1)
    """
    if dtype not in _TYPES:
        raise errors.ServingError(
            f"Conversion of JSON Value: {shown(value)} to type: {dtype.name}",
            code=grpc.StatusCode.UNIMPLEMENTED,
        )
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > _MAX_RANK:
        raise errors.ServingError(f"A tensor has at most {_MAX_RANK} dimensions.")
    values = _flat(value, shape)
    if values is None:  # To say what is wrong, and where, takes a walk.
        values = []
        _flatten(value, shape, dtype, values, level=0)
    check_values(values, dtype)
    if dtype == tf.string:
        values = [to_bytes(element) for element in values]
    filled = np.empty(len(values), dtype.as_numpy_dtype)
    filled[:] = values
    return filled.reshape(shape)


def _flat(value, shape):
    """The elements of nested lists, a level at a time; None if they are ragged."""
    items = [value]
    for size in shape:
        if set(map(type, items)) != {list} or set(map(len, items)) != {size}:
            return None
        items = list(itertools.chain.from_iterable(items))
    return None if list in set(map(type, items)) else items


def _flatten(value, shape, dtype, values, *, level):
    if not isinstance(value, list):
        if level != len(shape):
            raise errors.ServingError(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        check_values([value], dtype)
        values.append(value)
        return
    if level >= len(shape):
        raise errors.ServingError(
            f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        )
    if len(value) != shape[level]:
        raise errors.ServingError(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    if level == len(shape) - 1 and list not in map(type, value):
        check_values(value, dtype)
        values.extend(value)
        return
    for item in value:
        _flatten(item, shape, dtype, values, level=level + 1)


def check_values(values, dtype):
    """Refuses values that are not of the type, or do not fit it.

    Args:
        values: sequence of what the JSON parser made of values.
        dtype: `tf.DType`.

    Raises:
        errors.ServingError: INVALID_ARGUMENT.
    """
    if not set(map(type, values)) <= _TYPES[dtype]:
        wrong = next(value for value in values if type(value) not in _TYPES[dtype])
        raise _type_error(wrong, dtype)
    if dtype in _INTEGERS:
        wrong = next((v for v in values if not dtype.min <= v <= dtype.max), None)
        if wrong is not None:
            raise _type_error(wrong, dtype)
    elif dtype in (tf.float32, tf.float64) and not _are_small(values):
        wrong = next((v for v in values if not _is_lossless(v, dtype)), None)
        if wrong is not None:
            name = "float" if dtype == tf.float32 else "double"
            raise errors.ServingError(
                f"Cannot convert JSON value: {shown(wrong)} to {name} without loss of precision."
            )


def _are_small(values):
    """Whether all are within what every type of float holds, whole numbers exactly."""
    try:
        return bool(np.all(np.abs(np.array(values, np.float64)) < 2**24))
    except OverflowError:
        return False


def _is_lossless(value, dtype):
    if isinstance(value, int):
        return abs(value) < 2 ** (24 if dtype == tf.float32 else 53)
    return abs(value) <= dtype.max or value in (np.inf, -np.inf) or value != value


def to_bytes(value):
    """A string of a tensor or feature: text, or base64 in an object.

    Args:
        value: str, or dict.

    Returns:
        bytes.

    Raises:
        errors.ServingError: a dict without base64, or with what is none.

    Example:
        >>> to_bytes({"b64": "YQ=="}), to_bytes("a")
        (b'a', b'a')
    """
    return _decoded(value) if isinstance(value, dict) else encoded(value)


def encoded(text):
    """Text as UTF-8.

    Args:
        text: str; JSON can bring half a surrogate pair, which is no text.

    Returns:
        bytes.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, it cannot be encoded.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise errors.ServingError(
            "JSON Parse error: The surrogate pair in string is invalid."
        ) from error


def _is_b64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def is_object(value):
    """Whether a value is an object with names, and not bytes as base64.

    Args:
        value: what the JSON parser made of a value.

    Returns:
        bool.
    """
    return isinstance(value, dict) and not _is_b64(value)


def _decoded(value):
    if not _is_b64(value):
        raise format_error(value, "not formatted correctly for base64 data")
    text = re.sub(r"\s", "", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.ServingError("Unable to base64 decode") from error


def _type_error(value, dtype):
    name = {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
    return errors.ServingError(
        f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: {name}"
    )


def format_error(value, text):
    """The error for a value in the wrong place or form.

    Args:
        value: what the JSON parser made of a value.
        text: str, what is wrong.

    Returns:
        errors.ServingError.
    """
    return errors.ServingError(f"JSON Value: {shown(value)} {text}")


def type_name(value):
    """What JSON calls the type of a value.

    Args:
        value: what the JSON parser made of a value.

    Returns:
        str.

    Example:
        >>> type_name(None), type_name(True), type_name([])
        ('Null', 'True', 'Array')
    """
    return str(value) if isinstance(value, bool) else _NAMES.get(type(value), "Null")


def shown(value):
    """A value in an error message; long ones are cut.

    Args:
        value: what the JSON parser made of a value.

    Returns:
        str.
    """
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "..."
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
