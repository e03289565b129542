"""TF Serving's REST API as an ASGI application."""

import asyncio
import concurrent.futures
import contextlib
import json
import re
import urllib.parse

import grpc
from google.protobuf import wrappers_pb2
from starlette import applications, requests, responses, routing
from tensorflow_serving.apis import classification_pb2, model_pb2, regression_pb2

from export.server import errors, examples, inference, json_bodies

__all__ = ["application"]

_VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
_POST = re.compile(
    rf"/v1/models/(?P<name>[^/:]+){_VERSION}:(?P<method>classify|regress|predict)",
    re.IGNORECASE | re.ASCII,
)
_GET = re.compile(
    rf"/v1/models(?:/(?P<name>[^/:]+))?{_VERSION}(?:/(?P<resource>metadata))?",
    re.IGNORECASE | re.ASCII,
)
_LARGEST = 2**63 - 1


def application(manager, metrics, *, limits, monitoring_path, pages=()):
    """The ASGI application.

    Args:
        manager: manager.Manager.
        metrics: metrics.Metrics.
        limits: Limits.
        monitoring_path: path at which Prometheus finds the metrics.
        pages: sequence of Starlette routes, such as those of the user interface.

    Returns:
        `starlette.applications.Starlette`.
    """

    def show_metrics(request):
        del request
        return responses.Response(metrics.page(), media_type="text/plain")

    return applications.Starlette(
        routes=[
            routing.Route(monitoring_path, show_metrics),
            *pages,
            routing.Route("/{path:path}", _Rest(manager, metrics, limits)),
        ]
    )


class _Rest:
    """All requests under /v1, as an ASGI application, so that it sees the path as it was sent."""

    def __init__(self, manager, metrics, limits):
        self._manager = manager
        self._metrics = metrics
        self._limits = limits
        self._pool = concurrent.futures.ThreadPoolExecutor(limits.threads, "rest")
        self._under_way = 0

    async def __call__(self, scope, receive, send):
        request = requests.Request(scope, receive)
        try:
            response = await self._answer(request)
        except requests.ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request):
        path = request.scope["raw_path"].decode("latin-1")
        if not path.lower().startswith("/v1/"):
            return _error(errors.ServingError("Not Found", code=grpc.StatusCode.NOT_FOUND))
        if self._under_way >= self._limits.max_requests:
            return _error(
                errors.ServingError(
                    f"{self._limits.max_requests} requests are under way, and no more are taken. "
                    "Try again later.",
                    code=grpc.StatusCode.RESOURCE_EXHAUSTED,
                )
            )
        self._under_way += 1
        work = None
        try:
            body = await self._body(request)
            work = asyncio.get_running_loop().run_in_executor(
                self._pool, self._work, request.method, path, body
            )
            async with asyncio.timeout(self._limits.seconds):
                text = await asyncio.shield(work)
            return responses.Response(text, media_type="application/json")
        except TimeoutError:
            return _error(
                errors.ServingError(
                    f"The request took longer than {self._limits.seconds:g} s.",
                    code=grpc.StatusCode.DEADLINE_EXCEEDED,
                )
            )
        except errors.ServingError as error:
            return _error(error)
        finally:
            self._release_after(work)

    def _release_after(self, work):
        """Frees the place of a request once nothing works on it, be its client still there."""
        if work is None or work.done():
            self._under_way -= 1
        else:
            work.add_done_callback(self._release)

    def _release(self, work):
        self._under_way -= 1
        work.exception()  # Nobody else is going to look at it.

    async def _body(self, request):
        """The body, unless it is too large or comes too slowly."""
        largest = self._limits.max_bytes
        error = errors.TooLarge(f"The request body is larger than {largest} bytes.")
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > largest:
            raise error
        chunks, size = [], 0
        async with asyncio.timeout(self._limits.seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > largest:
                    raise error
                chunks.append(chunk)
        return b"".join(chunks)

    def _work(self, method, path, body):
        """In a thread: the answer as JSON."""
        try:
            pattern = {"POST": _POST, "GET": _GET}.get(method)
            found = pattern.fullmatch(path) if pattern else None
            if found is None:
                raise errors.ServingError(f"Malformed request: {method} {path}")
            spec = _model_spec(found)
            if method == "GET":
                return self._metadata(spec) if found["resource"] else self._status(spec)
            api = found["method"].capitalize()
            answers = {"Predict": self._predict, "Classify": self._classify}
            with self._metrics.request(spec.name, api=api, entrypoint="REST"):
                document, spec.signature_name = json_bodies.parse(body, self._limits)
                return answers.get(api, self._regress)(spec, document)
        except Exception as exception:  # Whatever a request brings about must not end the server.
            raise errors.from_exception(exception) from None

    def _status(self, spec):
        if not spec.name:
            raise errors.ServingError("Missing model name in request.")
        return json_bodies.status(self._manager.status(spec))

    def _metadata(self, spec):
        with self._manager.serving(spec) as version:
            return json_bodies.metadata(inference.metadata(version))

    def _predict(self, spec, document):
        with self._serving(spec, api="Predict") as version:
            definition = inference.signature(version.opened, spec)
            inputs, in_rows = json_bodies.inputs(document, definition)
            outputs = inference.run(version.opened, definition, inputs)
        return json_bodies.predictions(outputs, in_rows=in_rows)

    def _classify(self, spec, document):
        found = json_bodies.examples(document)
        request = classification_pb2.ClassificationRequest(model_spec=spec, input=found)
        with self._serving(spec, api="Classify") as version:
            answer = examples.classify(version.opened, request, limits=self._limits)
        return json_bodies.classifications(answer)

    def _regress(self, spec, document):
        found = json_bodies.examples(document)
        request = regression_pb2.RegressionRequest(model_spec=spec, input=found)
        with self._serving(spec, api="Regress") as version:
            answer = examples.regress(version.opened, request, limits=self._limits)
        return json_bodies.regressions(answer)

    @contextlib.contextmanager
    def _serving(self, spec, *, api):
        """Holds the version that a request asks for, while it is answered."""
        with self._manager.serving(spec) as version, self._metrics.running(spec.name, api=api):
            yield version


def _error(error):
    status = 413 if isinstance(error, errors.TooLarge) else errors.http_status(error.code)
    text = json.dumps({"error": error.message})
    return responses.Response(text, status_code=status, media_type="application/json")


def _model_spec(found):
    """The `ModelSpec` of a path."""
    spec = model_pb2.ModelSpec(name=_unquoted(found["name"] or "", "model name"))
    if found["version"]:
        version = int(found["version"]) if len(found["version"]) < 20 else _LARGEST + 1
        if version > _LARGEST:
            raise errors.ServingError(f"Failed to convert version: {found['version']} to numeric.")
        spec.version.CopyFrom(wrappers_pb2.Int64Value(value=version))
    if found["label"]:
        spec.version_label = _unquoted(found["label"], "model version label")
    return spec


def _unquoted(text, what):
    try:
        return urllib.parse.unquote_to_bytes(text).decode()
    except UnicodeDecodeError as error:
        raise errors.ServingError(f"Failed to decode {what}:{text}") from error
