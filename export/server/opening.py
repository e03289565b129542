"""Opening a version as TF Serving does: the session, what it refuses, the warm-up requests."""

import os

import grpc
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from circle_tf.serving import graph_checks
from export.saved_model import session, warmup
from export.server import errors, examples, inference

__all__ = ["open_version", "replay_warmup"]


def open_version(path, *, limits):
    """Opens a SavedModel and runs its warm-up requests.

    Args:
        path: directory of the version.
        limits: limits.Limits.

    Returns:
        session.SavedModelSession.

    Raises:
        OSError: no SavedModel there.
        errors.ServingError: a signature needs XLA, or a warm-up request fails.
        tf.errors.OpError: the session refuses the model, or a warm-up request.
    """
    opened = session.SavedModelSession(path)
    try:
        _refuse_compiled(opened)
        replay_warmup(opened, path, limits=limits)
    except BaseException:
        opened.close()
        raise
    return opened


def _refuse_compiled(opened):
    """This process could run what XLA compiles; TF Serving's stock binary, with XLA off, cannot."""
    graph = opened.graph_def()
    for name, signature in sorted(opened.signatures.items()):
        outputs = [tensor.name for tensor in signature.outputs.values()]
        for node in graph_checks.served_nodes(graph, outputs):
            if node.attr["_XlaMustCompile"].b:
                raise errors.ServingError(
                    f"Signature {name} calls {node.attr['f'].func.name or node.name}, which XLA "
                    "must compile (jit_compile=True), and a stock TensorFlow Serving does not run "
                    "that: XLA compilation disabled. Publish the model without --xla, or serve it "
                    "by tensorflow_model_server --xla_cpu_compilation_enabled=true.",
                    code=grpc.StatusCode.UNIMPLEMENTED,
                )


def replay_warmup(opened, path, *, limits):
    """Runs the warm-up requests of a version; one that fails keeps it from being served.

    Args:
        opened: session.SavedModelSession.
        path: directory of the version.
        limits: limits.Limits.

    Returns:
        int, how many there were.

    Raises:
        errors.ServingError: a request fails, or there are too many.
        tf.errors.OpError: what the session answers.
    """
    file = os.path.join(path, warmup.PATH)
    if not os.path.exists(file):
        return 0
    count = 0
    for record in tf.data.TFRecordDataset(file).as_numpy_iterator():
        count += 1
        if count > warmup.MOST:
            raise errors.ServingError(
                f"Number of warmup records exceeds the maximum ({warmup.MOST})"
            )
        _replay(opened, record, limits=limits)
    return count


def _replay(opened, record, *, limits):
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except Exception as error:  # DecodeError, whose place differs between protobuf's versions.
        raise errors.ServingError("Failed to parse warmup record") from error
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        inference.predict(opened, log.predict_log.request, limits=limits)
    elif kind == "classify_log":
        examples.classify(opened, log.classify_log.request, limits=limits)
    elif kind == "regress_log":
        examples.regress(opened, log.regress_log.request, limits=limits)
    elif kind == "multi_inference_log":
        examples.multi_inference(opened, log.multi_inference_log.request, limits=limits)
    else:
        raise errors.ServingError(
            f"Unsupported log_type for warmup: {kind or 'none'}",
            code=grpc.StatusCode.UNIMPLEMENTED,
        )
