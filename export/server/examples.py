"""Classify, Regress and MultiInference: what takes tf.Examples, on one open version."""

import grpc
import numpy as np
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from export.server import errors, inference

__all__ = ["classify", "multi_inference", "regress"]

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"


def classify(opened, request, *, limits):
    """Answers a ClassificationRequest, but for the version in its model_spec.

    Args:
        opened: session.SavedModelSession.
        request: `ClassificationRequest`.
        limits: limits.Limits.

    Returns:
        `ClassificationResponse`.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    tensor, outputs = _classify_signature(_definition(opened, request.model_spec))
    inputs = _serialized(request.input, limits)
    arrays = _run(opened, tensor, inputs, outputs)
    response = classification_pb2.ClassificationResponse()
    _fill_spec(response.model_spec, request.model_spec)
    _fill_classes(response.result, arrays, len(inputs))
    return response


def regress(opened, request, *, limits):
    """Answers a RegressionRequest, but for the version in its model_spec.

    Args:
        opened: session.SavedModelSession.
        request: `RegressionRequest`.
        limits: limits.Limits.

    Returns:
        `RegressionResponse`.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    tensor, outputs = _regress_signature(_definition(opened, request.model_spec))
    inputs = _serialized(request.input, limits)
    arrays = _run(opened, tensor, inputs, outputs)
    response = regression_pb2.RegressionResponse()
    _fill_spec(response.model_spec, request.model_spec)
    _fill_regressions(response.result, arrays, len(inputs))
    return response


def multi_inference(opened, request, *, limits):
    """Answers a MultiInferenceRequest: several signatures, one input, one run.

    Args:
        opened: session.SavedModelSession.
        request: `MultiInferenceRequest`.
        limits: limits.Limits.

    Returns:
        `MultiInferenceResponse`.

    Raises:
        errors.ServingError: as TF Serving answers.
        tf.errors.OpError: what the session answers.
    """
    tasks = [_task(opened, task) for task in request.tasks]
    _check_tasks(request.tasks, tasks)
    inputs = _serialized(request.input, limits)
    wanted = {
        (index, alias): name
        for index, (_, outputs) in enumerate(tasks)
        for alias, name in outputs.items()
    }
    arrays = _run(opened, tasks[0][0], inputs, wanted)
    response = inference_pb2.MultiInferenceResponse()
    for index, task in enumerate(request.tasks):
        result = response.results.add()
        _fill_spec(result.model_spec, task.model_spec)
        found = {alias: arrays[index, alias] for alias in tasks[index][1]}
        if task.method_name == CLASSIFY:
            _fill_classes(result.classification_result, found, len(inputs))
        else:
            _fill_regressions(result.regression_result, found, len(inputs))
    return response


def _definition(opened, spec):
    name = spec.signature_name or inference.DEFAULT_SIGNATURE
    if name not in opened.signatures:
        raise errors.ServingError(f"No signature was found with the name: {name}")
    return opened.signatures[name]


def _fill_spec(spec, asked):
    spec.name = asked.name
    spec.signature_name = asked.signature_name or inference.DEFAULT_SIGNATURE


def _run(opened, tensor, inputs, outputs):
    """The arrays of the outputs, which are given as alias to name; each name is fetched once."""
    names = sorted(set(outputs.values()))
    arrays = opened.run_tensors({tensor: inputs}, fetches=names)
    found = dict(zip(names, arrays, strict=True))
    return {alias: found[name] for alias, name in outputs.items()}


def _task(opened, task):
    """The input tensor and the outputs of one task."""
    name = task.model_spec.signature_name or inference.DEFAULT_SIGNATURE
    if name not in opened.signatures:
        raise errors.ServingError(f"Requested signature not found in model graph: {name}")
    if task.method_name not in _SIGNATURES:
        raise errors.ServingError(
            f"Unsupported signature method_name: {task.method_name}",
            code=grpc.StatusCode.UNIMPLEMENTED,
        )
    return _SIGNATURES[task.method_name](opened.signatures[name])


def _check_tasks(tasks, found):
    if not all(task.model_spec.name for task in tasks):
        raise errors.ServingError("Found ModelSpec with an empty model name.")
    if len({task.model_spec.name for task in tasks}) > 1:
        raise errors.ServingError(
            "All ModelSpecs in a MultiInferenceRequest must access the same model name."
        )
    names = [task.model_spec.signature_name or inference.DEFAULT_SIGNATURE for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise errors.ServingError(f"Duplicate evaluation of signature: {name}")
    if len({tensor for tensor, _ in found}) > 1:
        raise errors.ServingError("Input tensor must be the same for all Signatures.")


def _classify_signature(definition):
    """The name of the input tensor, and alias to name of the outputs."""
    if len(definition.inputs) != 1:
        raise errors.ServingError("Expected one input Tensor.")
    if len(definition.outputs) not in (1, 2):
        raise errors.ServingError(
            f"Expected one or two output Tensors, found {len(definition.outputs)}"
        )
    tensor = _input(definition, "classification")
    outputs = {
        alias: definition.outputs[alias].name
        for alias in ("classes", "scores")
        if alias in definition.outputs
    }
    if not outputs:
        raise errors.ServingError(
            "Expected classification signature outputs to contain at least one of "
            f'"classes" or "scores". Signature was: {definition}'
        )
    return tensor, outputs


def _regress_signature(definition):
    """The name of the input tensor, and alias to name of the only output."""
    if len(definition.inputs) != 1:
        raise errors.ServingError("Expected one input Tensor.")
    if len(definition.outputs) != 1:
        raise errors.ServingError("Expected one output Tensor.")
    tensor = _input(definition, "regression")
    if "outputs" not in definition.outputs:
        raise errors.ServingError(f"No regression outputs found in SignatureDef: {definition}")
    return tensor, {"outputs": definition.outputs["outputs"].name}


_SIGNATURES = {CLASSIFY: _classify_signature, REGRESS: _regress_signature}


def _input(definition, kind):
    if "inputs" not in definition.inputs:
        raise errors.ServingError(f"No {kind} inputs found in SignatureDef: {definition}")
    return definition.inputs["inputs"].name


def _serialized(examples, limits):
    """The examples of an Input as strings, each with the context, if there is one, before it."""
    kind = examples.WhichOneof("kind")
    found = getattr(examples, kind).examples if kind else ()
    if not found:
        raise errors.ServingError("Input is empty.")
    context = b""
    if kind == "example_list_with_context":
        context = examples.example_list_with_context.context.SerializeToString()
    size = examples.ByteSize() + len(context) * len(found)
    limits.check("A list of tf.Examples", elements=len(found), size=size)
    array = np.empty(len(found), object)
    array[:] = [context + example.SerializeToString() for example in found]
    return array


def _fill_classes(result, arrays, count):
    for alias, dtype in (("classes", np.object_), ("scores", np.float32)):
        if alias in arrays:
            _check_classes(arrays[alias], alias, np.dtype(dtype), count)
    widths = {array.shape[1] for array in arrays.values()}
    if len(widths) > 1:
        raise errors.ServingError(
            "Tensors class and score should match in dim_size(1). Got "
            f"{arrays['classes'].shape[1]} vs. {arrays['scores'].shape[1]}"
        )
    labels, scores = arrays.get("classes"), arrays.get("scores")
    for row in range(count):
        classes = result.classifications.add().classes
        for column in range(*widths):
            found = classes.add()
            if labels is not None:
                found.label = _text(labels[row, column])
            if scores is not None:
                found.score = scores[row, column]


def _text(label):
    try:
        return label.decode("utf-8")
    except UnicodeDecodeError as error:
        raise errors.ServingError("A class label is not UTF-8.") from error


def _check_classes(array, alias, dtype, count):
    if array.ndim != 2:
        raise errors.ServingError(
            f"Expected Tensor shape: [batch_size num_classes] but got {list(array.shape)}"
        )
    if array.dtype != dtype:
        name = "DT_STRING" if dtype == np.object_ else "DT_FLOAT"
        raise errors.ServingError(f"Expected {alias} Tensor of {name}. Got: {array.dtype}")
    if len(array) != count:
        raise errors.ServingError(
            f"Expected {alias} output batch size of {count}. Got: {len(array)}"
        )


def _fill_regressions(result, arrays, count):
    array = arrays["outputs"]
    if array.ndim not in (1, 2) or array.shape[1:] not in ((), (1,)):
        raise errors.ServingError(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
            f"{list(array.shape)}"
        )
    if len(array) != count:
        raise errors.ServingError(
            f"Input batch size did not match output batch size: {count} vs. {len(array)}"
        )
    if array.dtype != np.float32:
        raise errors.ServingError(f"Expected output Tensor of DT_FLOAT.  Got: {array.dtype}")
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
