"""Prometheus metrics under the names of TF Serving, where it has them."""

import contextlib
import time

import prometheus_client

from export.server import errors

__all__ = ["Metrics"]

_BUCKETS = tuple(10 * 1.8**power for power in range(33))  # Microseconds, as TF Serving's.
_OTHERS = ""  # The model name of requests for models there are not: names are the clients' choice.


class Metrics:
    """The metrics of one server.

    Args:
        is_model: `fn(name) -> bool`, whether a model of that name is configured.
    """

    def __init__(self, *, is_model):
        self._is_model = is_model
        self._registry = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            ":tensorflow:serving:request_count",
            "The total number of requests.",
            ("model_name", "status"),
            registry=self._registry,
        )
        self._latency = self._histogram(
            ":tensorflow:serving:request_latency",
            "Distribution of wall time (in microseconds) for the requests.",
            ("model_name", "API", "entrypoint"),
        )
        self._runtime = self._histogram(
            ":tensorflow:serving:runtime_latency",
            "Distribution of wall time (in microseconds) for the session.",
            ("model_name", "API", "runtime"),
        )
        self._loads = prometheus_client.Counter(
            ":tensorflow:cc:saved_model:load_attempt_count",
            "The number of times a SavedModel was loaded.",
            ("model_path", "status"),
            registry=self._registry,
        )

    def _histogram(self, name, text, labels):
        return prometheus_client.Histogram(
            name, text, labels, buckets=_BUCKETS, registry=self._registry
        )

    @contextlib.contextmanager
    def request(self, model, *, api, entrypoint):
        """Counts a request, and measures it from when it is parsed to its response.

        Args:
            model: str, as the client gave it.
            api: such as `Predict`.
            entrypoint: `GRPC` or `REST`.

        Raises:
            errors.ServingError: for whatever the request raises.
        """
        start, status = time.perf_counter(), "OK"
        try:
            yield
        except Exception as exception:  # Whatever a request brings about must not end the server.
            error = errors.from_exception(exception)
            status = error.code.name
            raise error from None
        finally:
            labels = (self._known(model), api, entrypoint)
            self._latency.labels(*labels).observe((time.perf_counter() - start) * 1e6)
            self._requests.labels(self._known(model), status).inc()

    @contextlib.contextmanager
    def running(self, model, *, api):
        """Measures a run of the session, with reading its tensors and making the response.

        Args:
            model: str, a configured model.
            api: such as `Predict`.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            observed = (time.perf_counter() - start) * 1e6
            self._runtime.labels(self._known(model), api, "TF1").observe(observed)

    def load(self, version, *, succeeded):
        """Counts an attempt to load a version.

        Args:
            version: such as `glyphs/3`; the whole path is nobody's business.
            succeeded: bool.
        """
        self._loads.labels(version, "success" if succeeded else "fail").inc()

    def page(self):
        """All metrics in Prometheus' text format.

        Returns:
            bytes.
        """
        text = prometheus_client.generate_latest(self._registry).decode()
        lines = [line for line in text.splitlines() if "_created" not in line]
        # The Python client wants counters to end in _total; TF Serving's do not.
        return "\n".join([*lines, ""]).replace("_count_total", "_count").encode()

    def _known(self, model):
        return model if self._is_model(model) else _OTHERS
