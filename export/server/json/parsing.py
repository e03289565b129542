"""JSON bodies of Predict requests to arrays, as TF Serving reads them."""

import json
import re

import numpy as np
import tensorflow as tf

from export.server import errors
from export.server.json import values

__all__ = ["fill_signature", "inputs", "parse"]

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
        raise values.format_error(document, "Is not object")
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
        raise values.format_error(
            document, "not formatted correctly. 'signature_name' key must be a string value."
        )
    spec.signature_name = values.encoded(name).decode()


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
        raise values.format_error(
            document,
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
        )
    types = {alias: tf.as_dtype(info.dtype) for alias, info in definition.inputs.items()}
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise values.format_error(document, "Excepting 'instances' to be an list/array")
        if not instances:
            raise values.format_error(document, "No values in 'instances' array")
        return _rows(instances, types), True
    if "inputs" not in document:
        raise errors.ServingError("Missing 'inputs' or 'instances' key")
    return _columns(document["inputs"], types), False


def _rows(instances, types):
    """One array per input; each instance is a value, or an object with a value per input."""
    named = values.is_object(instances[0])
    if not isinstance(instances[0], dict) and len(types) > 1:
        raise errors.ServingError(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    columns = {alias: [] for alias in types}
    for index, item in enumerate(instances):
        if named != values.is_object(item):
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
            f"{values.shown(item)} must only have keys: {','.join(sorted(types))}"
        )


def _add_value(value, name, columns, types, *, index, key=""):
    try:
        if name not in types:
            raise errors.ServingError(f"JSON object: does not have named input: {name}")
        array = values.array(value, types[name])
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
    if not values.is_object(value):
        if len(types) > 1:
            raise errors.ServingError(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        ((alias, dtype),) = types.items()
        return {alias: values.array(value, dtype)}
    for alias in sorted(types):
        if alias not in value:
            raise errors.ServingError(f"Missing named input: {alias} in 'inputs' object.")
    return {alias: values.array(value[alias], dtype) for alias, dtype in types.items()}


def _reason(error):
    if error.msg != "Expecting ',' delimiter":
        return _SYNTAX.get(error.msg, "Invalid value.")
    opened = []
    for bracket in re.sub(r'"(?:[^"\\]|\\.)*"|[^][{}]', "", error.doc[: error.pos]):
        opened.append(bracket) if bracket in "[{" else opened.pop()
    if opened[-1] == "{":
        return "Missing a comma or } after an object member."
    return "Missing a comma or ] after an array element."
