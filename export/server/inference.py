"""Predict and the metadata of signatures, on one open version."""

import math

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from export.server import errors

__all__ = [
    "DEFAULT_SIGNATURE",
    "check_metadata_fields",
    "from_proto",
    "metadata",
    "predict",
    "run",
    "signature",
    "to_proto",
]

DEFAULT_SIGNATURE = "serving_default"
_MAX_RANK = 64  # NumPy has no more dimensions.
_STRING_BYTES = 24  # In TensorFlow, of each string beside its characters.
_METADATA_FIELD = "signature_def"
_FIELDS = {  # The types of tensors that are taken and sent, and the field for their values.
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.float16: "half_val",
    tf.bfloat16: "half_val",
    tf.int64: "int64_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
    tf.complex64: "scomplex_val",
    tf.complex128: "dcomplex_val",
    **dict.fromkeys((tf.int32, tf.int16, tf.int8, tf.uint16, tf.uint8), "int_val"),
}


def predict(opened, request, *, limits):
    """Answers a PredictRequest, but for the version in its model_spec, which the caller knows.

    Args:
        opened: session.SavedModelSession.
        request: `PredictRequest`.
        limits: limits.Limits.

    Returns:
        `PredictResponse`.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    definition = signature(opened, request.model_spec)
    _check_aliases(definition, request.inputs)  # First: each of them may ask for a large tensor.
    inputs = {}
    for alias, proto in sorted(request.inputs.items()):
        try:
            inputs[alias] = from_proto(proto, limits=limits)
        except (ValueError, OverflowError) as error:
            raise errors.ServingError(f"tensor parsing error: {alias}: {error}") from error
    outputs = run(opened, definition, inputs, output_filter=request.output_filter)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    for alias, array in outputs.items():
        response.outputs[alias].CopyFrom(to_proto(array))
    return response


def signature(opened, spec):
    """The signature that a Predict request asks for.

    Args:
        opened: session.SavedModelSession.
        spec: `ModelSpec`.

    Returns:
        `SignatureDef`.

    Raises:
        errors.ServingError: FAILED_PRECONDITION, there is none of the name.
    """
    name = spec.signature_name or DEFAULT_SIGNATURE
    if name not in opened.signatures:
        raise errors.ServingError(
            f'Serving signature key "{name}" not found.',
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    return opened.signatures[name]


def run(opened, definition, inputs, *, output_filter=()):
    """Runs a signature.

    Args:
        opened: session.SavedModelSession.
        definition: `SignatureDef`.
        inputs: dict of alias to array.
        output_filter: sequence of aliases of outputs; empty for all.

    Returns:
        dict of alias to array.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    _check_aliases(definition, inputs)
    feeds = {info.name: inputs[alias] for alias, info in definition.inputs.items()}
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


def metadata(version):
    """The signatures of an open version, as GetModelMetadata tells them.

    Args:
        version: models.Version.

    Returns:
        `GetModelMetadataResponse`.
    """
    found = get_model_metadata_pb2.SignatureDefMap()
    for name, definition in version.opened.signatures.items():
        found.signature_def[name].CopyFrom(definition)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = version.model
    response.model_spec.version.value = version.number
    response.metadata[_METADATA_FIELD].Pack(found)
    return response


def from_proto(proto, *, limits):
    """The array in a TensorProto; numbers share the memory of `tensor_content`.

    Fewer values than elements are filled up with the last one, as TensorFlow does it: a small
    message can ask for a large array, so its size is checked before it is made.

    Args:
        proto: `TensorProto`.
        limits: limits.Limits.

    Returns:
        array; strings as bytes objects.

    Raises:
        ValueError, OverflowError: the message is not a tensor.
        errors.TooLarge: the array would be larger than allowed.
    """
    try:
        dtype = tf.as_dtype(proto.dtype)
    except (TypeError, KeyError):
        dtype = None
    if dtype not in _FIELDS:
        raise ValueError(f"no tensor can be read of dtype {proto.dtype}")
    shape = _shape(proto.tensor_shape)
    values, count = getattr(proto, _FIELDS[dtype]), math.prod(shape)
    size = count * np.dtype(dtype.as_numpy_dtype).itemsize
    if dtype == tf.string and values:
        size = sum(map(len, values)) + len(values[-1]) * max(0, count - len(values))
        size += _STRING_BYTES * count
    limits.check("A tensor", elements=count, size=size)
    content = proto.tensor_content  # A copy, each time; tf.make_ndarray makes three.
    if content and dtype == tf.string:
        raise ValueError("strings must be in string_val; found tensor_content")
    if content:
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    number = len(values) // (2 if dtype.is_complex else 1)
    if number > count:
        raise ValueError(f"{number} values for the {count} elements of shape {shape}")
    return _filled(proto, dtype, values)


def _shape(proto):
    if len(proto.dim) > _MAX_RANK:
        raise ValueError(f"no tensor has {len(proto.dim)} dimensions; {_MAX_RANK} is the most")
    shape = [dim.size for dim in proto.dim]
    if min(shape, default=0) < 0 or math.prod(filter(None, shape)) >= 2**63:
        raise ValueError(f"no tensor has shape {shape}")
    return shape


def _filled(proto, dtype, values):
    """The array of a TensorProto's values; TensorFlow reads them ten times as fast as Python."""
    stored = np.dtype(dtype.as_numpy_dtype)
    if _FIELDS[dtype] not in ("int_val", "half_val") or dtype == tf.int32:
        return tf.io.parse_tensor(proto.SerializeToString(), dtype).numpy()
    # Of what is sent in more bits than it has, TensorFlow would drop some.
    whole = tensor_pb2.TensorProto(
        dtype=tf.int32.as_datatype_enum, tensor_shape=proto.tensor_shape, int_val=values
    )
    numbers = tf.io.parse_tensor(whole.SerializeToString(), tf.int32).numpy()
    bits = stored if dtype.is_integer else np.dtype(np.uint16)
    if (
        numbers.size
        and not np.iinfo(bits).min <= numbers.min() <= numbers.max() <= np.iinfo(bits).max
    ):
        raise OverflowError(f"values are out of bounds for {dtype.name}")
    return numbers.astype(bits).view(stored)


def to_proto(array):
    """The TensorProto of an array, its values in the field of its type, as TF Serving sends them.

    `tf.make_tensor_proto` would put them into `tensor_content`, where clients that look into
    `float_val`, as TF Serving's answers allow, do not find them.

    Args:
        array: numpy array as a session returns it; strings as bytes objects.

    Returns:
        `TensorProto`.

    Example:
        >>> list(to_proto(np.float32([1.5, 2])).float_val)
        [1.5, 2.0]
    """
    dtype, values = tf.as_dtype(array.dtype), array.ravel()
    if dtype in (tf.float16, tf.bfloat16):
        values = values.view(np.uint16)
    elif dtype.is_complex:
        values = values.view(array.real.dtype)
    shape = tf.TensorShape(array.shape).as_proto()
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape)
    getattr(proto, _FIELDS[dtype]).extend(values.tolist())
    return proto


def _check_aliases(definition, inputs):
    if len(inputs) != len(definition.inputs):
        raise errors.ServingError(_wrong_count(set(inputs), set(definition.inputs)))
    for alias, info in sorted(definition.inputs.items()):
        if alias not in inputs:
            raise errors.ServingError(
                f"Signature input alias: {alias}(feed name: {info.name}) not found in request and "
                "no default value provided. Inputs expected to be in the request "
                f"{{{','.join(sorted(inputs))}}}, or default input alias set: "
            )


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
