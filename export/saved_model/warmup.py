"""Warm-up requests: what TF Serving runs before a version answers its first caller.

One record that fails keeps TF Serving from loading the version, so publishing replays them.
"""

import os
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, prediction_log_pb2

__all__ = ["MOST", "PATH", "Request", "exists", "read", "write"]

PATH = os.path.join("assets.extra", "tf_serving_warmup_requests")
MOST = 1000  # More keep TF Serving from loading the version.


class Request(NamedTuple):
    """A request of one signature.

    Args:
        signature: its name.
        inputs: dict of input name to array.
    """

    signature: str
    inputs: dict[str, Any]


def exists(path):
    """Whether a SavedModel has warm-up requests.

    Args:
        path: directory of the SavedModel.

    Returns:
        bool.
    """
    return os.path.exists(os.path.join(path, PATH))


def write(path, requests, *, model_name):
    """Writes warm-up requests into a SavedModel that is not published yet.

    Args:
        path: directory of the SavedModel.
        requests: list of Request; `classify` becomes a Classify request, others Predict.
        model_name: str, the name it will be served by.

    Raises:
        ValueError: there are too many.
    """
    if len(requests) > MOST:
        raise ValueError(
            f"TF Serving takes at most {MOST} warm-up requests; found {len(requests)}. Allow fewer "
            "batch sizes or signatures."
        )
    file = os.path.join(path, PATH)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with tf.io.TFRecordWriter(file) as records:
        for request in requests:
            records.write(_log(request, model_name).SerializeToString())


def read(path):
    """Reads the warm-up requests of a SavedModel.

    Args:
        path: directory of the SavedModel.

    Yields:
        Request.

    Raises:
        ValueError: a record is neither a Predict nor a Classify request.
    """
    records = tf.data.TFRecordDataset(os.path.join(path, PATH))
    for number, record in enumerate(records.as_numpy_iterator()):
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        if kind == "predict_log":
            request = log.predict_log.request
            arrays = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
            yield Request(request.model_spec.signature_name or "serving_default", arrays)
        elif kind == "classify_log":
            request = log.classify_log.request
            examples = request.input.example_list.examples
            inputs = np.array([example.SerializeToString() for example in examples], object)
            yield Request(request.model_spec.signature_name, {"inputs": inputs})
        else:
            raise ValueError(f"Warm-up record {number} is no Predict or Classify request ({kind}).")


def _log(request, model_name):
    log = prediction_log_pb2.PredictionLog()
    if request.signature == "classify":
        logged = classification_pb2.ClassificationRequest()
        for content in request.inputs["inputs"].tolist():
            logged.input.example_list.examples.add().ParseFromString(content)
        target = log.classify_log.request
    else:
        logged = predict_pb2.PredictRequest()
        for name, value in request.inputs.items():
            logged.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        target = log.predict_log.request
    logged.model_spec.name = model_name
    logged.model_spec.signature_name = request.signature
    target.CopyFrom(logged)
    return log
