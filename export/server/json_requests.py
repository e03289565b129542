"""JSON bodies of requests to arrays and tf.Examples, as TF Serving reads them."""

import base64
import binascii
import json
import re

import grpc
import numpy as np
import tensorflow as tf

from export.server import errors, tensors

__all__ = ["fill_examples", "fill_signature", "inputs", "parse"]

_SHOWN = 512  # Characters of a value in an error message.
_INTEGERS = (tf.int32, tf.int16, tf.int8, tf.uint8, tf.int64, tf.uint32, tf.uint64)
_TYPES = {  # What the elements of a tensor of the type may be; bool is no number here.
    tf.float32: {int, float},
    tf.float64: {int, float},
    tf.string: {str, dict},
    tf.bool: {bool},
    **dict.fromkeys(_INTEGERS, {int}),
}
_NAMES = {list: "Array", dict: "Object", str: "String", int: "Number", float: "Number"}
_SYNTAX = {  # What Python's parser says, and what TF Serving's says.
    "Expecting property name enclosed in double quotes": "Missing a name for object member.",
    "Illegal trailing comma before end of object": "Missing a name for object member.",
    "Expecting ':' delimiter": "Missing a colon after a name of object member.",
    "Extra data": "The document root must not be followed by other values.",
    "Unterminated string starting at": "Missing a closing quotation mark in string.",
    "Invalid \\escape": "Invalid escape character in string.",
    "Invalid control character at": "Invalid encoding in string.",
}


def parse(body):
    """The JSON object in a body.

    Args:
        body: bytes.

    Returns:
        dict.

    Raises:
        errors.ServingError: it is no JSON, or no object.
    """
    if not body.strip():
        raise errors.ServingError("JSON Parse error: The document is empty")
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        reason = _reason(error)
        raise errors.ServingError(f"JSON Parse error: {reason} at offset: {error.pos}") from error
    except UnicodeDecodeError as error:
        raise errors.ServingError("JSON Parse error: Invalid encoding in string.") from error
    except RecursionError as error:
        raise errors.ServingError("JSON Parse error: Nested too deeply.") from error
    except ValueError as error:  # A number of thousands of digits.
        raise errors.ServingError("JSON Parse error: Number too big.") from error
    if not isinstance(document, dict):
        raise _format_error(document, "Is not object")
    return document


def fill_signature(document, spec):
    """Puts the `signature_name` of a body, if it has one, into a model_spec.

    Args:
        document: dict, the body.
        spec: `ModelSpec`.

    Raises:
        errors.ServingError: it is not a string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    spec.signature_name = _encoded(name).decode()


def inputs(document, definition):
    """The inputs of a Predict request, be they in rows or in columns.

    Args:
        document: dict, the body.
        definition: `SignatureDef`.

    Returns:
        dict of alias to array, and whether they came in rows.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, as TF Serving answers.
    """
    if not definition.inputs:
        raise errors.ServingError("Failed to get input map for signature")
    if "instances" in document and "inputs" in document:
        raise _format_error(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    types = {alias: tf.as_dtype(info.dtype) for alias, info in definition.inputs.items()}
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _format_error(document, "Excepting 'instances' to be an list/array")
        if not instances:
            raise _format_error(document, "No values in 'instances' array")
        return _rows(instances, types), True
    if "inputs" not in document:
        raise errors.ServingError("Missing 'inputs' or 'instances' key")
    return _columns(document["inputs"], types), False


def fill_examples(document, request):
    """Puts the examples of a Classify or Regress body into a request.

    Args:
        document: dict, the body.
        request: `ClassificationRequest` or `RegressionRequest`.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, as TF Serving answers.
    """
    fill_signature(document, request.model_spec)
    if "examples" not in document:
        raise _format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise _format_error(document, "'examples' value is an empty array")
    target = request.input.example_list
    if "context" in document:
        target = request.input.example_list_with_context
        _fill_example(document["context"], target.context)
    for example in examples:
        _fill_example(example, target.examples.add())


def _rows(instances, types):
    """One array per input; each instance is a value, or an object with a value per input."""
    named = _is_object(instances[0])
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise errors.ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    columns = {alias: [] for alias in types}
    for index, item in enumerate(instances):
        if named != _is_object(item):
            found = "object but got list" if named else "value/list but got object"
            raise errors.ServingError(f"Expecting {found} at item {index} of input list")
        if named:
            _add_object(item, columns, types, index=index)
        else:
            _add_value(item, next(iter(types)), columns, types, index=index)
    return {alias: np.stack(rows) for alias, rows in columns.items()}


def _add_object(item, columns, types, *, index):
    for name, value in item.items():
        _add_value(value, name, columns, types, index=index, key=f" key: {name}")
    if set(item) != set(types):
        raise errors.ServingError(
            f"Failed to process element: {index} of 'instances' list. JSON object: "
            f"{_shown(item)} must only have keys: {','.join(sorted(types))}"
        )


def _add_value(value, name, columns, types, *, index, key=""):
    try:
        if name not in types:
            raise errors.ServingError(f"JSON object: does not have named input: {name}")
        array = _array(value, types[name])
        _check_same_shape(array, columns[name])
    except errors.ServingError as error:
        raise errors.ServingError(
            f"Failed to process element: {index}{key} of 'instances' list. Error: {error}"
        ) from error
    columns[name].append(array)


def _check_same_shape(array, rows):
    if not rows:
        return
    if array.size != rows[0].size:
        raise errors.ServingError(f"Expecting tensor size: {rows[0].size} but got: {array.size}")
    if array.shape != rows[0].shape:
        raise errors.ServingError(f"Expecting shape {_sizes(rows[0])} but got: {_sizes(array)}")


def _sizes(array):
    return f"[{','.join(map(str, array.shape))}]"


def _columns(value, types):
    if not _is_object(value):
        if len(types) > 1:
            raise errors.ServingError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        ((alias, dtype),) = types.items()
        return {alias: _array(value, dtype)}
    for alias in sorted(types):
        if alias not in value:
            raise errors.ServingError(f"Missing named input: {alias} in 'inputs' object.")
    return {alias: _array(value[alias], dtype) for alias, dtype in types.items()}


def _array(value, dtype):
    """A value, or nested lists of values, as an array of exactly the type."""
    if dtype not in _TYPES:
        raise errors.ServingError(
            f"Conversion of JSON Value: {_shown(value)} to type: {dtype.name}",
            code=grpc.StatusCode.UNIMPLEMENTED,
        )
    shape, inner = [], value
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    if len(shape) > tensors.MAX_RANK:
        raise errors.ServingError(f"A tensor has at most {tensors.MAX_RANK} dimensions.")
    values = []
    _flatten(value, shape, dtype, values, level=0)
    if dtype == tf.string:
        values = [_bytes(element) for element in values]
    array = np.empty(len(values), dtype.as_numpy_dtype)
    array[:] = values
    return array.reshape(shape)


def _flatten(value, shape, dtype, values, *, level):
    if not isinstance(value, list):
        if level != len(shape):
            raise errors.ServingError(
                f"JSON Value: {_shown(value)} found at incorrect level: {level + 1} in the JSON "
                f"DOM. Expected at level: {len(shape)}"
            )
        _check_values([value], dtype)
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
        _check_values(value, dtype)
        values.extend(value)
        return
    for item in value:
        _flatten(item, shape, dtype, values, level=level + 1)


def _check_values(values, dtype):
    """Each value must be of the type, and fit it."""
    if not set(map(type, values)) <= _TYPES[dtype]:
        wrong = next(value for value in values if type(value) not in _TYPES[dtype])
        raise _type_error(wrong, dtype)
    if dtype in _INTEGERS:
        wrong = next((v for v in values if not dtype.min <= v <= dtype.max), None)
        if wrong is not None:
            raise _type_error(wrong, dtype)
    elif dtype in (tf.float32, tf.float64):
        wrong = next((v for v in values if not _is_lossless(v, dtype)), None)
        if wrong is not None:
            name = "float" if dtype == tf.float32 else "double"
            raise errors.ServingError(
                f"Cannot convert JSON value: {_shown(wrong)} to {name} without loss of precision."
            )


def _is_lossless(value, dtype):
    if isinstance(value, int):
        return abs(value) < 2 ** (24 if dtype == tf.float32 else 53)
    return abs(value) <= dtype.max or value in (np.inf, -np.inf) or value != value


def _bytes(value):
    return _decoded(value) if isinstance(value, dict) else _encoded(value)


def _encoded(text):
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise errors.ServingError(
            "JSON Parse error: The surrogate pair in string is invalid."
        ) from error


def _is_b64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def _is_object(value):
    return isinstance(value, dict) and not _is_b64(value)


def _decoded(value):
    if not _is_b64(value):
        raise _format_error(value, "not formatted correctly for base64 data")
    text = re.sub(r"\s", "", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise errors.ServingError("Unable to base64 decode") from error


def _fill_example(value, example):
    if not isinstance(value, dict):
        raise errors.ServingError(f"Example must be JSON object but got JSON {_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[_encoded(name).decode()]
        for element in content if isinstance(content, list) else [content]:
            _add_element(element, name, feature)


def _add_element(value, name, feature):
    """Adds one element to a feature, whose first element decided on its kind."""
    if value is None or isinstance(value, list) or _is_object(value):
        raise errors.ServingError(
            f"Feature: {name} has element with unexpected JSON type: {_name(value)}"
        )
    kind = {float: "float_list", int: "int64_list", bool: "int64_list"}.get(
        type(value), "bytes_list"
    )
    found = feature.WhichOneof("kind")
    if found not in (None, kind):
        raise errors.ServingError(
            f"Unexpected element type in feature: {name} expecting type: "
            f"{found.removesuffix('_list')}"
        )
    if kind == "int64_list" and not tf.int64.min <= value <= tf.int64.max:
        raise errors.ServingError(f"Feature: {name} has uint64 element. Only int64 is supported.")
    if kind == "float_list":
        _check_values([value], tf.float32)
    element = _bytes(value) if kind == "bytes_list" else value
    getattr(feature, kind).value.append(element)


def _type_error(value, dtype):
    name = {tf.float32: "float", tf.float64: "double"}.get(dtype, dtype.name)
    return errors.ServingError(
        f"JSON Value: {_shown(value)} Type: {_name(value)} is not of expected type: {name}"
    )


def _format_error(value, text):
    return errors.ServingError(f"JSON Value: {_shown(value)} {text}")


def _name(value):
    return str(value) if isinstance(value, bool) else _NAMES.get(type(value), "Null")


def _shown(value):
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "..."
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _reason(error):
    if error.msg != "Expecting ',' delimiter":
        return _SYNTAX.get(error.msg, "Invalid value.")
    opened = []
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}]', "", error.doc[: error.pos]):
        opened.append(bracket) if bracket in "[{" else opened.pop()
    if opened[-1] == "{":
        return "Missing a comma or } after an object member."
    return "Missing a comma or ] after an array element."
