"""TF Serving's two gRPC services, by the servicers that its protos generate."""

import concurrent.futures

import grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

from export.server import errors

__all__ = ["serve"]

_MAX_DETAILS = 1000  # They travel in a header; clients refuse headers beyond some kilobytes.


def serve(api, metrics, *, host, port, threads, max_requests, max_bytes):
    """Starts the gRPC server.

    Args:
        api: api.API.
        metrics: metrics.Metrics.
        host: address to listen at.
        port: int; 0 for a free one.
        threads: int, requests that are worked on at once.
        max_requests: int, requests under way; one more is answered RESOURCE_EXHAUSTED.
        max_bytes: int, the largest request; a larger one is answered RESOURCE_EXHAUSTED.

    Returns:
        `grpc.Server`, started, and its port.

    Raises:
        OSError: the port is taken.
    """
    options = [
        ("grpc.max_receive_message_length", max_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # Two servers on one port would share its requests.
    ]
    pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    server = grpc.server(pool, options=options, maximum_concurrent_rpcs=max_requests)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _Prediction(api, metrics), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(api), server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen at {address}: is the port taken?") from error
    server.start()
    return server, bound


def _answered(answer, request):
    """The answer and None, or None and the error."""
    try:
        return answer(request), None
    except Exception as exception:  # Whatever a request brings about must not end the server.
        return None, errors.from_exception(exception)


def _send(context, response, error):
    """Returns the response, or ends the call with the error as its status."""
    if error is not None:
        details = error.message
        if len(details) > _MAX_DETAILS:
            details = details[:_MAX_DETAILS] + "..."
        context.abort(error.code, details)
    return response


class _Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """The five RPCs of PredictionService."""

    def __init__(self, api, metrics):
        self._api = api
        self._metrics = metrics

    def Predict(self, request, context):
        return self._counted(context, self._api.predict, request, api="Predict")

    def Classify(self, request, context):
        return self._counted(context, self._api.classify, request, api="Classify")

    def Regress(self, request, context):
        return self._counted(context, self._api.regress, request, api="Regress")

    def MultiInference(self, request, context):
        return self._counted(context, self._api.multi_inference, request, api="MultiInference")

    def GetModelMetadata(self, request, context):
        return _send(context, *_answered(self._api.metadata, request))

    def _counted(self, context, answer, request, *, api):
        model = _model_name(request)
        if not context.is_active():
            return None  # Its client has given up while it waited for its turn.
        with self._metrics.timed(model, api=api, entrypoint="GRPC"):
            response, error = _answered(answer, request)
        self._metrics.request(model, status=error.code.name if error else "OK")
        return _send(context, response, error)


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    """The two RPCs of ModelService."""

    def __init__(self, api):
        self._api = api

    def GetModelStatus(self, request, context):
        return _send(context, *_answered(self._api.status, request))

    def HandleReloadConfigRequest(self, request, context):
        def reload(request):
            return self._api.reload(request, is_active=context.is_active)

        return _send(context, *_answered(reload, request))


def _model_name(request):
    if hasattr(request, "tasks"):
        return request.tasks[0].model_spec.name if request.tasks else ""
    return request.model_spec.name
