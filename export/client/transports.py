"""How `export.client` speaks with a server: by gRPC or by REST, one attempt a call."""

import base64
import dataclasses
import json

import numpy as np

from export.cli import console

__all__ = ["Answer", "Grpc", "Rest", "ServerError", "call"]

_UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
_START = (
    "Is the server running? Start one here: python -m export.serve --models_config=FILE "
    "--allow_version_labels_for_unavailable_models"
)
# TF Serving's way back from HTTP: what it answers for each status.
_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class ServerError(console.ExportError):
    """The server refused a request, or did not answer.

    Args:
        code: name of the gRPC status, as `INVALID_ARGUMENT`.
        message: what the server said.
    """

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a signature returned.

    Args:
        outputs: dict of name to array; strings as bytes.
        version: int, the version that answered; None by REST, which does not tell.
    """

    outputs: dict
    version: int | None


def call(method, request, *, target, timeout):
    """Calls a server by gRPC.

    Args:
        method: of a stub.
        request: its message.
        target: `host:port`, to name it.
        timeout: float, seconds.

    Returns:
        The answer.

    Raises:
        ServerError: it was refused, or there was no answer in time.
    """
    import grpc

    try:
        return method(request, timeout=timeout)
    except grpc.RpcError as error:
        code = error.code().name
        if code == "DEADLINE_EXCEEDED":
            message = f"no answer from {target} in time. Give it longer by --timeout."
        elif code == "UNAVAILABLE":
            message = f"{target} cannot be reached ({error.details()}). {_START}"
        else:
            message = error.details()
        raise ServerError(code, message) from None


class Grpc:
    """By gRPC.

    Args:
        target: `host:port`.
        model: its name on the server.
        version: int, or None.
        label: str, or None.
    """

    def __init__(self, target, *, model, version, label):
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self.model = model
        self._target, self._version, self._label = target, version, label
        self._channel = grpc.insecure_channel(target, options=_UNLIMITED)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def close(self):
        """Closes the channel."""
        self._channel.close()

    def predict(self, inputs, signature, *, timeout):
        """See `client.Client.predict`."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        self._specify(request.model_spec)
        request.model_spec.signature_name = signature
        for name, value in inputs.items():
            # Numbers go as the bytes that they are in memory, `tensor_content`.
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        response = self._call(self._stub.Predict, request, timeout=timeout)
        outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        return Answer(outputs, response.model_spec.version.value)

    def signatures(self, *, timeout):
        """See `client.Client.signatures`."""
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._specify(request.model_spec)
        response = self._call(self._stub.GetModelMetadata, request, timeout=timeout)
        found = get_model_metadata_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(found)
        return {
            name: {
                key: tuple(dim.size for dim in info.tensor_shape.dim)
                for key, info in signature.inputs.items()
            }
            for name, signature in found.signature_def.items()
        }

    def _specify(self, spec):
        spec.name = self.model
        if self._version is not None:
            spec.version.value = self._version
        if self._label is not None:
            spec.version_label = self._label

    def _call(self, method, request, *, timeout):
        return call(method, request, target=self._target, timeout=timeout)


class Rest:
    """By REST, in the columnar form: it carries scalars as well.

    Args:
        target: `http://host:port`.
        model: its name on the server.
        version: int, or None.
        label: str, or None.
    """

    def __init__(self, target, *, model, version, label):
        import requests

        self.model = model
        which = "" if version is None else f"/versions/{version}"
        which = which if label is None else f"/labels/{label}"
        self._target = target.rstrip("/")
        self._url = f"{self._target}/v1/models/{model}{which}"
        self._session = requests.Session()
        self._defs = None

    def close(self):
        """Closes the connections."""
        self._session.close()

    def predict(self, inputs, signature, *, timeout):
        """See `client.Client.predict`."""
        columns = [f"{json.dumps(name)}: {_as_json(value)}" for name, value in inputs.items()]
        body = f'{{"signature_name": {json.dumps(signature)}, "inputs": {{{", ".join(columns)}}}}}'
        answer = self._call("POST", f"{self._url}:predict", timeout=timeout, body=body)["outputs"]
        if not isinstance(answer, dict):  # A single output comes without its name.
            (name,) = self._signature_defs(timeout=timeout)[signature]["outputs"]
            answer = {name: answer}
        return Answer({name: _as_array(found) for name, found in answer.items()}, None)

    def signatures(self, *, timeout):
        """See `client.Client.signatures`."""
        return {
            name: {key: _shape(info) for key, info in signature["inputs"].items()}
            for name, signature in self._signature_defs(timeout=timeout).items()
        }

    def _signature_defs(self, *, timeout):
        if self._defs is None:
            answer = self._call("GET", f"{self._url}/metadata", timeout=timeout)
            self._defs = answer["metadata"]["signature_def"]["signature_def"]
        return self._defs

    def _call(self, method, url, *, timeout, body=None):
        import requests

        kind = {"Content-Type": "application/json"} if body else None
        try:
            response = self._session.request(method, url, data=body, headers=kind, timeout=timeout)
            answer = response.json()
        except requests.Timeout:
            message = f"no answer from {self._target} in time. Give it longer by --timeout."
            raise ServerError("DEADLINE_EXCEEDED", message) from None
        except requests.ConnectionError as error:
            message = f"{self._target} cannot be reached ({_reason(error)}). {_START}"
            raise ServerError("UNAVAILABLE", message) from None
        except ValueError:
            answer = {"error": f"{url} answers with {response.status_code} and no JSON."}
        if response.ok and "error" not in answer:
            return answer
        code = _CODES.get(response.status_code, "UNKNOWN")
        raise ServerError(code, answer.get("error", response.text[:300]))


def _reason(error):
    """The last cause of a connection's error: the outer ones repeat it at length."""
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    return str(getattr(error, "reason", None) or error).rpartition(": ")[2]


def _shape(info):
    return tuple(int(dim["size"]) for dim in info["tensor_shape"].get("dim", []))


def _as_json(value):
    """An array as text, without nested lists.

    One list for each pixel brings on full collections of garbage, of 200 ms where TensorFlow is.
    """
    if value.dtype == object or value.dtype.kind == "S":
        return json.dumps(_encoded(value.tolist()))
    if value.dtype.kind not in "biuf" or value.ndim == 0 or not value.size:
        return json.dumps(value.tolist())
    parts, between = json.dumps(value.ravel().tolist())[1:-1].split(", "), ", "
    for size in value.shape[:0:-1]:
        parts = list(map(between.join, zip(*[iter(parts)] * size, strict=True)))
        between = f"]{between}["
    return "[" * value.ndim + between.join(parts) + "]" * value.ndim


def _encoded(value):
    if isinstance(value, list):
        return [_encoded(part) for part in value]
    return {"b64": base64.b64encode(value).decode()}


def _as_array(value):
    array = np.asarray(value)
    if array.dtype.kind == "U":
        return np.array([text.encode() for text in array.ravel()], object).reshape(array.shape)
    if array.dtype.kind == "O":
        raw = [base64.b64decode(entry["b64"]) for entry in array.ravel()]
        return np.array(raw, object).reshape(array.shape)
    return array.astype(np.float32) if array.dtype.kind == "f" else array
