"""TF Serving's two gRPC services, by the servicers that its protos generate."""

import concurrent.futures
import contextlib

import grpc
from absl import logging
from tensorflow_serving.apis import (
    model_management_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2_grpc,
)

from export.server import errors, examples, inference

__all__ = ["serve"]

_MAX_DETAILS = 1000  # They travel in a header; clients refuse headers beyond some kilobytes.


def serve(manager, metrics, *, host, port, limits):
    """Starts the gRPC server.

    Args:
        manager: manager.Manager.
        metrics: metrics.Metrics.
        host: address to listen at.
        port: int; 0 for a free one.
        limits: limits.Limits; what is beyond is answered RESOURCE_EXHAUSTED.

    Returns:
        `grpc.Server`, started, and its port.

    Raises:
        OSError: the port is taken.
    """
    options = [
        ("grpc.max_receive_message_length", limits.max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # Two servers on one port would share its requests.
    ]
    pool = concurrent.futures.ThreadPoolExecutor(limits.threads, thread_name_prefix="grpc")
    server = grpc.server(
        pool,
        options=options,
        interceptors=[_Unparsed()],
        maximum_concurrent_rpcs=limits.max_requests,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Prediction(manager, metrics, limits), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(manager), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen at {address}: is the port taken?") from error
    server.start()
    return server, bound


class _Unparsed(grpc.ServerInterceptor):
    """Answers INTERNAL to what is no message of the method, as gRPC does, but in one line of log.

    gRPC itself writes a traceback for each.
    """

    def intercept_service(self, continuation, handler_call_details):
        handler = continuation(handler_call_details)
        if handler is None:  # There is no such method.
            return None

        def parse(data):
            try:
                return handler.request_deserializer(data)
            except Exception as error:  # DecodeError, whose place differs between versions.
                return error

        def answer(request, context):
            if not isinstance(request, Exception):
                return handler.unary_unary(request, context)
            message = f"The request cannot be parsed as {handler_call_details.method} takes it."
            logging.warning("%s", message)
            return context.abort(grpc.StatusCode.INTERNAL, message)

        return grpc.unary_unary_rpc_method_handler(answer, parse, handler.response_serializer)


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The five RPCs of PredictionService."""

    def __init__(self, manager, metrics, limits):
        self._manager = manager
        self._metrics = metrics
        self._limits = limits

    def Predict(self, request, context):
        with self._serving(request, context, api="Predict") as version:
            response = inference.predict(version.opened, request, limits=self._limits)
            response.model_spec.version.value = version.number
            return response

    def Classify(self, request, context):
        with self._serving(request, context, api="Classify") as version:
            response = examples.classify(version.opened, request, limits=self._limits)
            response.model_spec.version.value = version.number
            return response

    def Regress(self, request, context):
        with self._serving(request, context, api="Regress") as version:
            response = examples.regress(version.opened, request, limits=self._limits)
            response.model_spec.version.value = version.number
            return response

    def MultiInference(self, request, context):
        first = request.tasks[0] if request.tasks else request.tasks.add(model_spec={})
        with self._serving(first, context, api="MultiInference") as version:
            response = examples.multi_inference(version.opened, request, limits=self._limits)
            for result in response.results:
                result.model_spec.version.value = version.number
            return response

    def GetModelMetadata(self, request, context):
        with _refusing(context):
            _check_spec(request)
            inference.check_metadata_fields(request)
            with self._manager.serving(request.model_spec) as version:
                return inference.metadata(version)

    @contextlib.contextmanager
    def _serving(self, request, context, *, api):
        """Holds the version that a request, or a task of one, asks for, while it is answered."""
        name = request.model_spec.name
        with _refusing(context):
            if not context.is_active():
                raise errors.ServingError(
                    "The client gave up before its turn.", code=grpc.StatusCode.CANCELLED
                )
            with self._metrics.request(name, api=api, entrypoint="GRPC"):
                _check_spec(request)
                with self._manager.serving(request.model_spec) as version:
                    with self._metrics.running(name, api=api):
                        yield version


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """The two RPCs of ModelService."""

    def __init__(self, manager):
        self._manager = manager

    def GetModelStatus(self, request, context):
        with _refusing(context):
            _check_spec(request)
            return self._manager.status(request.model_spec)

    def HandleReloadConfigRequest(self, request, context):
        with _refusing(context):
            if request.config.WhichOneof("config") != "model_config_list":
                raise errors.ServingError(
                    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                    "ModelConfigList is currently supported"
                )
            self._manager.reload(request.config, is_active=context.is_active)
            response = model_management_pb2.ReloadConfigResponse()
            response.status.SetInParent()
            return response


@contextlib.contextmanager
def _refusing(context):
    """Ends the call with the status for whatever its answer raises."""
    try:
        yield
    except Exception as exception:  # Whatever a request brings about must not end the server.
        error = errors.from_exception(exception)
        details = error.message
        if len(details) > _MAX_DETAILS:
            details = details[:_MAX_DETAILS] + "..."
        context.abort(error.code, details)


def _check_spec(request):
    if not request.HasField("model_spec"):
        raise errors.ServingError("Missing ModelSpec")
