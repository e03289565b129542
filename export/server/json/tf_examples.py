"""JSON bodies of Classify and Regress requests to tf.Examples, as TF Serving reads them."""

import tensorflow as tf

from export.server import errors
from export.server.json import parsing, values

__all__ = ["fill_examples"]


def fill_examples(document, request):
    """Puts the examples of a Classify or Regress body into a request.

    Args:
        document: dict, the body.
        request: `ClassificationRequest` or `RegressionRequest`.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, as TF Serving answers.
    """
    parsing.fill_signature(document, request.model_spec)
    if "examples" not in document:
        raise values.format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    examples = document["examples"]
    if not isinstance(examples, list):
        raise values.format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise values.format_error(document, "'examples' value is an empty array")
    target = request.input.example_list
    if "context" in document:
        target = request.input.example_list_with_context
        _fill_example(document["context"], target.context)
    for example in examples:
        _fill_example(example, target.examples.add())


def _fill_example(value, example):
    if not isinstance(value, dict):
        raise errors.ServingError(
            f"Example must be JSON object but got JSON {values.type_name(value)}"
        )
    for name, content in value.items():
        feature = example.features.feature[values.encoded(name).decode()]
        for element in content if isinstance(content, list) else [content]:
            _add_element(element, name, feature)


def _add_element(value, name, feature):
    """Adds one element to a feature, whose first element decided on its kind."""
    if value is None or isinstance(value, list) or values.is_object(value):
        raise errors.ServingError(
            f"Feature: {name} has element with unexpected JSON type: {values.type_name(value)}"
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
        values.check_values([value], tf.float32)
    convert = {"bytes_list": values.to_bytes, "int64_list": int, "float_list": float}
    element = convert[kind](value)
    getattr(feature, kind).value.append(element)
