"""The requests of TF Serving's API, whichever way they come: gRPC or REST."""

from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2

from export.server import errors, examples, inference

__all__ = ["API"]


class API:
    """Answers requests as protobuf messages.

    Args:
        manager: manager.Manager.
        metrics: metrics.Metrics.
        max_bytes: int, the largest tensor to take.
    """

    def __init__(self, *, manager, metrics, max_bytes):
        self._manager = manager
        self._metrics = metrics
        self._max_bytes = max_bytes

    def predict(self, request):
        """PredictRequest to PredictResponse."""

        def answer(opened):
            return inference.predict(opened, request, max_bytes=self._max_bytes)

        return self._run(request, answer, api="Predict")

    def predict_arrays(self, request, *, make_inputs):
        """Predict for a body that cannot be read before the signature is known.

        Args:
            request: `PredictRequest` without inputs.
            make_inputs: `fn(SignatureDef) -> dict of alias to array`.

        Returns:
            dict of alias to array.
        """
        self._check_spec(request)
        name = request.model_spec.signature_name or inference.DEFAULT_SIGNATURE
        with self._manager.serving(request.model_spec) as version:
            if name not in version.opened.signatures:
                raise errors.ServingError(
                    f'Serving signature name: "{name}" not found in signature def'
                )
            inputs = make_inputs(version.opened.signatures[name])
            with self._metrics.running(request.model_spec.name, api="Predict"):
                return inference.run(
                    version.opened, signature=name, inputs=inputs, max_bytes=self._max_bytes
                )

    def classify(self, request):
        """ClassificationRequest to ClassificationResponse."""

        def answer(opened):
            return examples.classify(opened, request)

        return self._run(request, answer, api="Classify")

    def regress(self, request):
        """RegressionRequest to RegressionResponse."""

        def answer(opened):
            return examples.regress(opened, request)

        return self._run(request, answer, api="Regress")

    def multi_inference(self, request):
        """MultiInferenceRequest to MultiInferenceResponse."""
        task = request.tasks[0] if request.tasks else request.tasks.add()
        with self._manager.serving(task.model_spec) as version:
            with self._metrics.running(task.model_spec.name, api="MultiInference"):
                response = examples.multi_inference(version.opened, request)
        for result in response.results:
            result.model_spec.version.value = version.number
        return response

    def metadata(self, request):
        """GetModelMetadataRequest to GetModelMetadataResponse."""
        self._check_spec(request)
        inference.check_metadata_fields(request)
        with self._manager.serving(request.model_spec) as version:
            response = inference.metadata(version.opened)
            response.model_spec.name = version.model
            response.model_spec.version.value = version.number
            return response

    def status(self, request):
        """GetModelStatusRequest to GetModelStatusResponse."""
        self._check_spec(request)
        response = get_model_status_pb2.GetModelStatusResponse()
        for number, state, error in self._manager.status(request.model_spec):
            found = response.model_version_status.add(version=number, state=state)
            found.status.error_code = error.code.value[0] if error else 0
            found.status.error_message = error.message if error else ""
        return response

    def reload(self, request, *, is_active):
        """ReloadConfigRequest to ReloadConfigResponse.

        Args:
            request: `ReloadConfigRequest`.
            is_active: `fn() -> bool`, whether the client still waits.
        """
        if request.config.WhichOneof("config") != "model_config_list":
            raise errors.ServingError(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only "
                "ModelConfigList is currently supported"
            )
        self._manager.reload(request.config, is_active=is_active)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response

    def _run(self, request, answer, *, api):
        self._check_spec(request)
        with self._manager.serving(request.model_spec) as version:
            with self._metrics.running(request.model_spec.name, api=api):
                response = answer(version.opened)
        response.model_spec.version.value = version.number
        return response

    @staticmethod
    def _check_spec(request):
        if not request.HasField("model_spec"):
            raise errors.ServingError("Missing ModelSpec")
