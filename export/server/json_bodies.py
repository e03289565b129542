"""The JSON of TF Serving's REST API: bodies to arrays and tf.Examples, and answers to bodies."""

import base64
import itertools
import json
import re

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, input_pb2

from export.server import errors

__all__ = [
    "classifications",
    "examples",
    "inputs",
    "metadata",
    "parse",
    "predictions",
    "regressions",
    "status",
]

_SHOWN = 512  # Characters of a value in an error message.
_MAX_RANK = 64  # NumPy has no more dimensions.
_EXACT = {tf.float32: 2**24 - 1, tf.float64: 2**53 - 1}  # Holds all whole numbers up to this.
_INTEGERS = (tf.int32, tf.int16, tf.int8, tf.uint8, tf.int64, tf.uint32, tf.uint64)
_TYPES = {  # What the elements of a tensor of the type may be; bool is no number here.
    **dict.fromkeys(_EXACT, {int, float}),
    **dict.fromkeys(_INTEGERS, {int}),
    tf.string: {str, dict},
    tf.bool: {bool},
}


def parse(body, limits):
    """The JSON object in a body, and the signature that it names.

    Args:
        body: bytes.
        limits: limits.Limits. Each value takes some 60 bytes once it is read, of two in the body.

    Returns:
        dict, and str; empty if no signature is named.

    Raises:
        errors.ServingError: it is no JSON, no object, or has more values than elements are allowed.
    """
    limits.check("A body", elements=sum(map(body.count, (b",", b"[", b"{"))))
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise errors.ServingError(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise errors.ServingError(f"The body must be a JSON object; found {_shown(document)}.")
    signature = document.get("signature_name", "")
    if not isinstance(signature, str):
        raise errors.ServingError(f"'signature_name' must be a string; found {_shown(signature)}.")
    return document, _to_bytes(signature).decode()


def inputs(document, definition):
    """The inputs of a Predict request, in rows (`instances`) or in columns (`inputs`).

    Args:
        document: dict, the body.
        definition: `SignatureDef`.

    Returns:
        dict of alias to array, strings as bytes objects; and whether they came in rows.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, they are not what the signature takes;
            UNIMPLEMENTED, JSON cannot carry what it takes.
    """
    if not definition.inputs:
        raise errors.ServingError("The signature has no inputs: call it by gRPC.")
    if "instances" in document and "inputs" in document:
        raise errors.ServingError("Expecting only one of 'inputs' or 'instances' keys.")
    types = {alias: tf.as_dtype(info.dtype) for alias, info in sorted(definition.inputs.items())}
    if "instances" in document:
        columns = _columns(document["instances"], types)
    elif "inputs" in document:
        columns = document["inputs"]
        if not _is_object(columns):
            columns = {next(iter(types)): columns}
    else:
        raise errors.ServingError("Missing 'inputs' or 'instances' key")
    if missing := [alias for alias in types if alias not in columns]:
        raise errors.ServingError(
            f"Missing named input: {missing[0]}. 'inputs' must be an object with the keys "
            f"{', '.join(types)}; only of a signature with one input, it may be that alone."
        )
    arrays = {alias: _array(columns[alias], dtype, alias) for alias, dtype in types.items()}
    return arrays, "instances" in document


def examples(document):
    """The tf.Examples of a Classify or Regress request.

    Args:
        document: dict, the body.

    Returns:
        `Input`.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, there are none.

    Example:
        >>> len(examples({"examples": [{"a": 1}, {"a": [2, 3]}]}).example_list.examples)
        2
    """
    found = document.get("examples")
    if not isinstance(found, list) or not found:
        raise errors.ServingError(
            f"'examples' must be a list of at least one object; found {_shown(found)}."
        )
    result = input_pb2.Input()
    target = result.example_list
    if "context" in document:
        target = result.example_list_with_context
        _fill_example(target.context, document["context"])
    for features in found:
        _fill_example(target.examples.add(), features)
    return result


def predictions(outputs, *, in_rows):
    """The outputs of Predict.

    Args:
        outputs: dict of alias to array.
        in_rows: whether as one prediction per row of the batch; else as one tensor per output.

    Returns:
        str.

    Raises:
        errors.ServingError: they have no rows, or JSON cannot carry them.

    Example:
        >>> predictions({"embeddings": np.float32([[0.1, 1], [2, 3]])}, in_rows=True)
        '{"predictions": [[0.1, 1.0], [2.0, 3.0]]}'
    """
    values = {alias: _values(array, alias) for alias, array in outputs.items()}
    if len(values) == 1:
        (only,) = values.values()
    if not in_rows:
        return json.dumps({"outputs": only if len(values) == 1 else values})
    if len({array.shape[:1] for array in outputs.values()} | {(), (0,)}) != 3:
        shapes = ", ".join(f"{alias} {list(array.shape)}" for alias, array in outputs.items())
        raise errors.ServingError(
            "Predictions for 'instances' need outputs with one first dimension of at least 1; "
            f"found {shapes}. Send 'inputs' instead."
        )
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return json.dumps({"predictions": only if len(values) == 1 else rows})


def classifications(response):
    """A `ClassificationResponse` as JSON."""
    found = [
        [[c.label, _values(np.float32(c.score))] for c in row.classes]
        for row in response.result.classifications
    ]
    return json.dumps({"results": found})


def regressions(response):
    """A `RegressionResponse` as JSON."""
    found = np.array([found.value for found in response.result.regressions], np.float32)
    return json.dumps({"results": _values(found)})


def status(response):
    """A `GetModelStatusResponse` as JSON."""
    return json.dumps(_message(response), indent=1)


def metadata(response):
    """A `GetModelMetadataResponse` as JSON."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    found = {"signature_def": _message(signatures)}
    return json.dumps({"model_spec": _message(response.model_spec), "metadata": found}, indent=1)


def _columns(instances, types):
    """Alias to the values of all rows; a row of a signature with one input needs no alias."""
    if not isinstance(instances, list) or not instances:
        raise errors.ServingError(
            f"'instances' must be a list of at least one element; found {_shown(instances)}."
        )
    if len(types) == 1 and not any(map(_is_object, instances)):
        return {next(iter(types)): instances}
    for index, row in enumerate(instances):
        if not _is_object(row) or row.keys() != types.keys():
            raise errors.ServingError(
                f"Element {index} of 'instances' must be an object with the keys "
                f"{', '.join(types)}; found {_shown(row)}."
            )
    return {alias: [row[alias] for row in instances] for alias in types}


def _array(value, dtype, name):
    """A value, or nested lists of values, as an array of the type."""
    if dtype not in _TYPES:
        raise errors.ServingError(
            f"Input {name} is {dtype.name}, which JSON cannot carry: call it by gRPC.",
            code=grpc.StatusCode.UNIMPLEMENTED,
        )
    shape, elements = [], [value]
    while elements and isinstance(elements[0], list):
        shape.append(len(elements[0]))
        if set(map(type, elements)) != {list} or set(map(len, elements)) != {shape[-1]}:
            raise errors.ServingError(
                f"Input {name} is ragged: in dimension {len(shape) - 1} some elements are lists "
                f"of {shape[-1]}, and others are not."
            )
        elements = list(itertools.chain.from_iterable(elements))
    if len(shape) > _MAX_RANK:
        raise errors.ServingError(f"Input {name} has more than {_MAX_RANK} dimensions.")
    return _checked(elements, dtype, name).reshape(shape)


def _checked(elements, dtype, name):
    """Elements as a flat array of exactly the type, to which no number is made to fit."""
    if not set(map(type, elements)) <= _TYPES[dtype]:
        wrong = next(element for element in elements if type(element) not in _TYPES[dtype])
        raise errors.ServingError(
            f"{name}: JSON Value: {_shown(wrong)} is not of expected type: {dtype.name}"
        )
    if dtype == tf.string:
        array = np.empty(len(elements), object)
        array[:] = [_to_bytes(element) for element in elements]
        return array
    if dtype != tf.bool and elements:
        _check_range(elements, dtype, name)
    return np.array(elements, dtype.as_numpy_dtype)


def _check_range(numbers, dtype, name):
    largest = float(dtype.max) if dtype in _EXACT else dtype.max
    high = _EXACT.get(dtype, largest)
    low = -high if dtype in _EXACT else dtype.min
    if low <= min(numbers) and max(numbers) <= high:
        return
    for number in numbers:  # Between `high` and `largest`, fractions are rounded as all are.
        fits = low <= number <= high or (isinstance(number, float) and abs(number) <= largest)
        if not fits and (isinstance(number, int) or np.isfinite(number)):
            raise errors.ServingError(
                f"{name}: JSON Value: {_shown(number)} is not {dtype.name} without loss of "
                "precision"
            )


def _fill_example(example, features):
    if not isinstance(features, dict):
        raise errors.ServingError(f"An example must be a JSON object; found {_shown(features)}.")
    for name, content in features.items():
        feature = example.features.feature[_to_bytes(name).decode()]
        elements = content if isinstance(content, list) else [content]
        types = set(map(type, elements))
        if not elements:
            continue
        if types <= {str, dict}:
            feature.bytes_list.value.extend(_checked(elements, tf.string, name))
        elif types <= {int, bool}:
            numbers = [int(element) for element in elements]
            feature.int64_list.value.extend(_checked(numbers, tf.int64, name).tolist())
        elif types == {float}:
            feature.float_list.value.extend(_checked(elements, tf.float32, name).tolist())
        else:
            raise errors.ServingError(
                f"Feature {name} must hold strings, or whole numbers, or numbers with a point, "
                f"and no others beside them; found {_shown(content)}."
            )


def _is_object(value):
    """Whether a value is an object with names, and not bytes as base64."""
    is_b64 = isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)
    return isinstance(value, dict) and not is_b64


def _to_bytes(value):
    """A string, be it text or base64 in an object."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:  # JSON can bring half a surrogate pair.
            raise errors.ServingError(f"{_shown(value)} is not text: {error.reason}.") from error
    if _is_object(value):
        raise errors.ServingError(
            f'JSON Value: {_shown(value)} is not {{"b64": "..."}}, as base64 data must be'
        )
    text = re.sub(r"\s", "", value["b64"]).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise errors.ServingError("Unable to base64 decode") from error


def _shown(value):
    """A value in an error message; long ones are cut."""
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = "..."
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _values(array, alias=""):
    """An array as nested lists that `json.dumps` takes; bytes by an alias ending in `_bytes`."""
    if array.dtype == np.float32:  # The shortest decimals that read back as the same floats.
        return array.astype(str).astype(np.float64).tolist()
    if array.dtype == np.float64 or array.dtype.kind in "iub":
        return array.tolist()
    if array.dtype != np.object_:
        raise errors.ServingError(f"Output {alias} is {array.dtype}, which JSON cannot carry.")
    strings = np.empty(array.size, object)
    if alias.endswith("_bytes"):
        strings[:] = [{"b64": base64.b64encode(value).decode()} for value in array.flat]
    else:
        strings[:] = [value.decode("utf-8", "replace") for value in array.flat]
    return strings.reshape(array.shape).tolist()


def _message(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
