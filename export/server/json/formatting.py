"""Answers as JSON, as TF Serving writes them."""

import base64
import json

import numpy as np
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

from export.server import errors

__all__ = ["classifications", "columns", "error", "metadata", "regressions", "rows", "status"]


def rows(outputs):
    """The outputs of Predict in rows: one prediction per element of the batch.

    Args:
        outputs: dict of alias to array.

    Returns:
        str.

    Raises:
        errors.ServingError: an output has no batch, or another one than the others.

    Example:
        >>> rows({"embeddings": np.float32([[0.1, 1], [2, 3]])})
        '{"predictions": [[0.1, 1.0], [2.0, 3.0]]}'
    """
    size = None
    for alias, array in outputs.items():
        if not array.ndim:
            raise errors.ServingError(f"Tensor name: {alias} has no shape information ")
        if not len(array):
            raise errors.ServingError(f"Tensor name: {alias} has invalid batch size: 0")
        if size not in (None, len(array)):
            raise errors.ServingError(
                f"Tensor name: {alias} has inconsistent batch size: {len(array)} expecting: {size}"
            )
        size = len(array)
    texts = {alias: _elements(array, alias) for alias, array in outputs.items()}
    if len(texts) == 1:
        (predictions,) = texts.values()
    else:
        predictions = [
            _object({alias: elements[index] for alias, elements in texts.items()})
            for index in range(size)
        ]
    return _object({"predictions": f"[{', '.join(predictions)}]"})


def columns(outputs):
    """The outputs of Predict in columns: one tensor per output.

    Args:
        outputs: dict of alias to array.

    Returns:
        str.
    """
    texts = {alias: _text(array, alias) for alias, array in outputs.items()}
    found = next(iter(texts.values())) if len(texts) == 1 else _object(texts)
    return _object({"outputs": found})


def classifications(response):
    """A `ClassificationResponse` as JSON."""
    results = [
        [f"[{json.dumps(c.label)}, {_number(np.float32(c.score))}]" for c in found.classes]
        for found in response.result.classifications
    ]
    return _object({"results": f"[{', '.join(f'[{chr(44).join(r)}]' for r in results)}]"})


def regressions(response):
    """A `RegressionResponse` as JSON."""
    values = [_number(np.float32(found.value)) for found in response.result.regressions]
    return _object({"results": f"[{', '.join(values)}]"})


def status(response):
    """A `GetModelStatusResponse` as JSON."""
    return json.dumps(_message(response), indent=1)


def metadata(response):
    """A `GetModelMetadataResponse` as JSON."""
    signatures = get_model_metadata_pb2.SignatureDefMap()
    response.metadata["signature_def"].Unpack(signatures)
    found = {"signature_def": _message(signatures)}
    return json.dumps({"model_spec": _message(response.model_spec), "metadata": found}, indent=1)


def error(message):
    """An error as JSON."""
    return json.dumps({"error": message})


def _message(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def _object(members):
    """A JSON object of members that are JSON already."""
    return "{" + ", ".join(f"{json.dumps(k)}: {text}" for k, text in members.items()) + "}"


def _text(array, alias):
    if not array.ndim:
        return _scalars(array.reshape(1), alias)[0]
    return f"[{', '.join(_elements(array, alias))}]"


def _elements(array, alias):
    """The JSON of each element along the first dimension."""
    if array.ndim == 1:
        return _scalars(array, alias)
    return [_text(element, alias) for element in array]


def _scalars(array, alias):
    if array.dtype == np.object_:
        return [_string(value, as_bytes=alias.endswith("_bytes")) for value in array]
    if array.dtype.kind == "f" and array.dtype.itemsize >= 4:
        return _numbers(array)
    if array.dtype.kind in "iub":
        return [json.dumps(value) for value in array.tolist()]
    raise errors.ServingError(f"Failed to write JSON value for tensor type: {array.dtype}")


def _numbers(array):
    """The shortest decimals that read back as the same floats; NaN and Infinity as such."""
    texts = array.astype(str).tolist()
    if np.isfinite(array).all():
        return texts
    return [_SPECIAL.get(text, text) for text in texts]


_SPECIAL = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _number(value):
    return _numbers(value.reshape(1))[0]


def _string(value, *, as_bytes):
    if as_bytes:
        return json.dumps({"b64": base64.b64encode(value).decode()})
    return json.dumps(value.decode("utf-8", "replace"))
