"""Servers that are told of a change of models.config, and asked what became of it."""

import contextlib
import time

from export.cli import console
from export.client import transports

__all__ = ["Server", "connected"]

_POLL_SECONDS = 0.1


@contextlib.contextmanager
def connected(targets, *, model, timeout):
    """Servers that can be reached; found out before anything is changed.

    Args:
        targets: `host:port` each, of the servers' gRPC.
        model: name of the model that is asked about.
        timeout: float, seconds that a server may take for one answer, or to load a version.

    Yields:
        list of Server.

    Raises:
        transports.ServerError: one of them does not answer.
    """
    with contextlib.ExitStack() as opened:
        servers = [
            opened.enter_context(Server(target, model=model, timeout=timeout)) for target in targets
        ]
        for server in servers:
            server.states()
        yield servers


class Server:
    """A TF Serving, or `export.serve`, asked about one model by ModelService; a context manager.

    Args:
        target: `host:port` of its gRPC.
        model: the model's name.
        timeout: float, seconds that it may take for one answer, or to load a version.

    Raises:
        console.ExportError: the target is no `host:port`.
    """

    def __init__(self, target, *, model, timeout):
        import grpc
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        if "://" in target or ":" not in target:
            raise console.ExportError(
                "--server must be host:port of a server's gRPC, as localhost:8500; found "
                f"{target!r}."
            )
        self.target = target
        self._model = model
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target)
        self._service = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._metadata = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._channel.close()

    def states(self):
        """The versions that the server knows.

        Returns:
            dict of version to `ModelVersionStatus`; empty if it does not know the model.
        """
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = self._model
        try:
            answer = self._call(self._service.GetModelStatus, request)
        except transports.ServerError as error:
            if error.code == "NOT_FOUND":
                return {}
            raise
        return {status.version: status for status in answer.model_version_status}

    def loaded(self):
        """The versions that answer requests, as a set of int."""
        return {
            version for version, status in self.states().items() if _name(status) == "AVAILABLE"
        }

    def labels(self, names):
        """The versions that answer requests by label.

        Args:
            names: labels to ask by: a server does not list them.

        Returns:
            dict of label to version; without those by which nothing answers.
        """
        from tensorflow_serving.apis import get_model_metadata_pb2

        found = {}
        for label in sorted(names):
            request = get_model_metadata_pb2.GetModelMetadataRequest(
                metadata_field=["signature_def"]
            )
            request.model_spec.name = self._model
            request.model_spec.version_label = label
            try:
                answer = self._call(self._metadata.GetModelMetadata, request)
            except transports.ServerError as error:
                if error.code not in ("INVALID_ARGUMENT", "NOT_FOUND"):
                    raise
            else:
                found[label] = answer.model_spec.version.value
        return found

    def reload(self, config):
        """Puts a configuration in force, as the server does itself when it reads it from a file.

        Args:
            config: `ModelServerConfig`, all that the server is to serve.

        Raises:
            transports.ServerError: the server refuses it.
        """
        from tensorflow_serving.apis import model_management_pb2

        request = model_management_pb2.ReloadConfigRequest(config=config)
        self._call(self._service.HandleReloadConfigRequest, request)

    def wait_until_loaded(self, versions):
        """Waits until all of the versions answer requests.

        Args:
            versions: ints.

        Raises:
            transports.ServerError: one cannot be loaded, or is not in time.
        """
        end = time.monotonic() + self._timeout
        while True:
            states = self.states()
            waits = [v for v in sorted(versions) if _name(states.get(v)) != "AVAILABLE"]
            if not waits:
                return
            state = states.get(waits[0])
            which = f"{self._model}/{waits[0]}"
            if _name(state) == "END" and state.status.error_code:
                raise self._error(f"it cannot load {which}: {state.status.error_message}")
            if time.monotonic() > end:
                raise self._error(
                    f"{which} is {_name(state)} after {self._timeout:g} s. Give it longer by "
                    "--timeout."
                )
            time.sleep(_POLL_SECONDS)

    def check_labels(self, labels):
        """Makes sure that requests by label are answered by the versions that they should be.

        Args:
            labels: dict of label to version.

        Raises:
            transports.ServerError: they are not.
        """
        found = self.labels(labels)
        for label, version in sorted(labels.items()):
            if found.get(label) != version:
                raise self._error(
                    f"label {label} is on version {found.get(label, 'none')}, not on {version}"
                )

    def _call(self, method, request):
        try:
            return transports.call(method, request, target=self.target, timeout=self._timeout)
        except transports.ServerError as error:
            if self.target in error.message:
                raise
            raise transports.ServerError(error.code, f"{self.target}: {error.message}") from None

    def _error(self, message):
        return transports.ServerError("FAILED_PRECONDITION", f"{self.target}: {message}")


def _name(status):
    """The name of a version's state, or UNKNOWN without one."""
    return type(status).State.Name(status.state) if status is not None else "UNKNOWN"
