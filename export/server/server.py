"""`Server`: everything put together, in this process."""

import contextlib
import os

import grpc

from export.cli import console
from export.server import config as configs
from export.server import (
    errors,
    grpc_api,
    http,
    manager,
    metrics,
    opening,
    rest_api,
)
from export.server import ui as pages_of
from export.server.limits import Limits
from export.server.ui import hosts

__all__ = ["Server"]

MONITORING_PATH = "/monitoring/prometheus/metrics"  # TF Serving's default.


class Server:
    """A local model server that speaks TF Serving's protocols and answers as it does.

    It runs models in the same C++ session, but it is Python around it: for development and
    tests. It has no batching, no request logging, no gzip, no TLS and no authentication, so keep
    it on the loopback interface; in production run `tensorflow/serving`. A model that aborts the
    process (see `export.verify`, which tries that in another process) takes it down, as it would
    TF Serving. A version with a function that XLA must compile is not loaded: a stock TF Serving
    cannot run it.

    Use as a context manager, or call `stop`.

    Args:
        config: `ModelServerConfig`, or path of a models.config. It is read again when
            `config_poll_seconds` is not 0.
        host: address to listen at; anybody who reaches it can use the models and reload.
        grpc_port: int; 0 for a free one.
        rest_port: int; 0 for a free one.
        ui: whether to serve the page of `export.server.ui` at `/`.
        ui_hosts: host names that a browser may call the server by, beside `localhost`, `host` and
            all addresses; with `ui` REST answers to no others.
        poll_seconds: float, time between two looks at the base paths.
        config_poll_seconds: float, time between two looks at models.config; 0 for none.
        labels_for_unavailable: whether a label may name a version that is not available yet, as
            TF Serving's --allow_version_labels_for_unavailable_models.
        limits: Limits.
        monitoring_path: where Prometheus finds the metrics, on the REST port.
        tell: `fn(line)`, told of every version that begins or ends to be served.

    Attributes:
        grpc_port: int.
        rest_port: int.

    Raises:
        console.ExportError: the configuration is wrong.
        OSError: a port is taken.

    Example:
        >>> from export.server import for_model
        >>> with Server(for_model("glyphs", "models/glyphs")) as server:
        ...     server.grpc_port > 0
        True
    """

    def __init__(
        self,
        config,
        *,
        host="127.0.0.1",
        grpc_port=0,
        rest_port=0,
        ui=False,
        ui_hosts=(),
        poll_seconds=1.0,
        config_poll_seconds=0,
        labels_for_unavailable=False,
        limits=None,
        monitoring_path=MONITORING_PATH,
        tell=lambda line: None,
    ):
        self._limits = limits or Limits()
        self._grace = 0
        self._manager = manager.Manager(
            open_version=self._open,
            poll_seconds=poll_seconds,
            labels_for_unavailable=labels_for_unavailable,
            tell=tell,
        )
        self._metrics = metrics.Metrics(is_model=self._manager.is_model)
        with contextlib.ExitStack() as started:
            self._start_manager(config, started)
            if config_poll_seconds:
                watch = configs.Watch(config, reload=self._manager.reload, tell=tell)
                started.callback(watch.stop)
                watch.start(config_poll_seconds)
            names = (host, *ui_hosts) if ui else None
            self.rest_port = self._start_http(
                started, host, rest_port, monitoring_path=monitoring_path, names=names
            )
            self.grpc_port = self._start_grpc(started, host, grpc_port)
            self._stop = started.pop_all().close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_available(self, model, *, timeout=60.0, version=None):
        """Waits until a model, or one version of it, answers requests.

        Args:
            model: its name.
            timeout: float, seconds.
            version: int, or None for any.

        Returns:
            int, the version; the highest of those available.

        Raises:
            TimeoutError: it does not; the message says what is known of its versions.
            errors.ServingError: all that there is failed to load.
        """
        return self._manager.wait_until_available(model, timeout=timeout, version=version)

    def models(self):
        """The models that are configured.

        Returns:
            dict of name to base path.
        """
        return self._manager.models()

    def stop(self, grace=5.0):
        """Takes no more requests, answers those under way, unloads the models.

        Args:
            grace: float, seconds; requests that are not done by then are cut off.
        """
        self._grace = grace
        self._stop()

    def _open(self, path):
        model = "/".join(path.split(os.sep)[-2:])
        succeeded = False
        try:
            opened = opening.open_version(path, limits=self._limits)
            succeeded = True
            return opened
        finally:
            self._metrics.load(model, succeeded=succeeded)

    def _start_manager(self, config, started):
        if isinstance(config, str | os.PathLike):
            config = configs.read(config)
        try:
            self._manager.start(config)
        except errors.ServingError as error:
            hint = ""
            if error.code == grpc.StatusCode.FAILED_PRECONDITION:
                hint = " At the start no version is: --allow_version_labels_for_unavailable_models."
            raise console.ExportError(f"{error.message}.{hint}") from error
        started.callback(self._manager.stop)

    def _start_http(self, started, host, port, *, monitoring_path, names):
        """With the page if there are names to show it by."""
        pages = ()
        if names:
            pages = pages_of.routes(models=self._manager.models, path_of=self._manager.path_of)
        application = rest_api.application(
            self._manager,
            self._metrics,
            limits=self._limits,
            monitoring_path=monitoring_path,
            pages=pages,
        )
        if names:
            application = hosts.KnownHosts(application, names=names)
        server = http.HTTPServer(
            application,
            host=host,
            port=port,
            seconds=self._limits.seconds,
            max_connections=self._limits.max_connections,
        )
        started.callback(lambda: server.stop(self._grace))
        return server.port

    def _start_grpc(self, started, host, port):
        server, bound = grpc_api.serve(
            self._manager,
            self._metrics,
            host=host,
            port=port,
            limits=self._limits,
        )
        started.callback(lambda: server.stop(self._grace).wait())
        return bound
