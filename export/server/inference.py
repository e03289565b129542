"""Predict and the metadata of signatures, on one open version."""

import grpc
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from export.server import errors, tensors

__all__ = ["DEFAULT_SIGNATURE", "check_metadata_fields", "metadata", "predict", "run"]

DEFAULT_SIGNATURE = "serving_default"
_METADATA_FIELD = "signature_def"


def predict(opened, request, *, max_bytes):
    """Answers a PredictRequest, but for the version in its model_spec, which the caller knows.

    Args:
        opened: session.SavedModelSession.
        request: `PredictRequest`.
        max_bytes: int, the largest tensor to take.

    Returns:
        `PredictResponse`.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    outputs = run(
        opened,
        signature=name,
        inputs=request.inputs,
        output_filter=request.output_filter,
        max_bytes=max_bytes,
    )
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(tensors.to_proto(array))
    return response


def run(opened, *, signature, inputs, output_filter=(), max_bytes):
    """Runs a signature.

    Args:
        opened: session.SavedModelSession.
        signature: name of the signature.
        inputs: mapping of alias to `TensorProto` or array.
        output_filter: sequence of aliases of outputs; empty for all.
        max_bytes: int, the largest tensor to take.

    Returns:
        dict of alias to array.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    if signature not in opened.signatures:
        raise errors.ServingError(
            f'Serving signature key "{signature}" not found.',
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    definition = opened.signatures[signature]
    feeds = _feeds(definition, inputs, max_bytes=max_bytes)
    fetches = _fetches(definition, output_filter)
    return dict(zip(fetches, opened.run_tensors(feeds, fetches=fetches.values()), strict=True))


def check_metadata_fields(request):
    """Refuses a GetModelMetadataRequest that asks for nothing, or for what there is not.

    Args:
        request: `GetModelMetadataRequest`.

    Raises:
        errors.ServingError: INVALID_ARGUMENT.
    """
    if not request.metadata_field:
        raise errors.ServingError(
            "GetModelMetadataRequest must specify at least one metadata_field"
        )
    for field in request.metadata_field:
        if field != _METADATA_FIELD:
            raise errors.ServingError(f"Metadata field {field} is not supported")


def metadata(opened):
    """The signatures of an open version, as GetModelMetadata tells them.

    Args:
        opened: session.SavedModelSession.

    Returns:
        `GetModelMetadataResponse` without its model_spec.
    """
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in opened.signatures.items():
        found.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata[_METADATA_FIELD].Pack(found)
    return response


def _feeds(definition, inputs, *, max_bytes):
    """Tensor name to array, once the aliases are found right."""
    if len(inputs) != len(definition.inputs):
        raise errors.ServingError(_wrong_count(set(inputs), set(definition.inputs)))
    feeds = {}
    for alias, info in sorted(definition.inputs.items()):
        if alias not in inputs:
            raise errors.ServingError(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and "
                "no default value provided. Inputs expected to be in the request "
                f"{{{','.join(sorted(inputs))}}}, or default input alias set: "
            )
        feeds[info.name] = _array(inputs[alias], alias, max_bytes=max_bytes)
    return feeds


def _array(value, alias, *, max_bytes):
    if not hasattr(value, "tensor_shape"):
        return value
    try:
        return tensors.to_array(value, max_bytes=max_bytes)
    except (ValueError, OverflowError) as error:
        raise errors.ServingError(f"tensor parsing error: {alias}") from error


def _wrong_count(sent, wanted):
    def join(names):
        return ",".join(sorted(names))

    return (
        f"input size does not match signature: {len(sent)}!={len(wanted)} len({{{join(sent)}}}) "
        f"!= len({{{join(wanted)}}}). Sent extra: {{{join(sent - wanted)}}}. "
        f"Missing but required: {{{join(wanted - sent)}}}."
    )


def _fetches(definition, output_filter):
    """Alias to tensor name of the outputs that are asked for."""
    fetches = {}
    for alias in output_filter or sorted(definition.outputs):
        if alias not in definition.outputs:
            raise errors.ServingError(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in "
                f"the set {{{','.join(sorted(definition.outputs))}}}."
            )
        if alias in fetches:
            raise errors.ServingError(f"duplicate output tensor alias: {alias}")
        fetches[alias] = definition.outputs[alias].name
    return fetches
