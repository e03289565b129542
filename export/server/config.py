"""The server's configuration: models.config as TF Serving reads it, checked, and watched."""

import os
import threading

import grpc
from tensorflow_serving.config import model_server_config_pb2

from export.cli import console
from export.rollout import models_config
from export.server import errors

__all__ = ["Watch", "check", "for_model", "read"]


def for_model(name, base_path):
    """The configuration for one model, of which the latest version is served.

    Args:
        name: the model's name in requests.
        base_path: directory of its versions.

    Returns:
        `ModelServerConfig`.

    Example:
        >>> for_model("glyphs", "/models/glyphs").model_config_list.config[0].name
        'glyphs'
    """
    config = model_server_config_pb2.ModelServerConfig()
    base_path = os.path.abspath(os.fspath(base_path))
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform="tensorflow")
    return config


def read(path):
    """Reads a models.config for the server, which must have something to serve.

    Args:
        path: file with a ModelServerConfig as protobuf text.

    Returns:
        `ModelServerConfig`.

    Raises:
        console.ExportError: it cannot be read or parsed, or lists nothing.
    """
    config = models_config.read(path)
    if not config.model_config_list.config:
        raise console.ExportError(
            f"{path} lists no models. Write model_config_list {{ config {{ name: ... }} }}."
        )
    return config


def check(config, *, before=None):
    """Refuses a configuration that TF Serving refuses.

    Args:
        config: `ModelServerConfig`.
        before: `ModelServerConfig` in force, or None.

    Raises:
        errors.ServingError: INVALID_ARGUMENT, or FAILED_PRECONDITION for a custom one.
    """
    if config.WhichOneof("config") == "custom_model_config":
        raise errors.ServingError(
            "Cannot transition to requested config. It is only legal to transition from one "
            "ModelConfigList to another.",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    seen = set()
    for model in config.model_config_list.config:
        if model.name in seen:
            raise errors.ServingError(
                f"Illegal to list model {model.name} multiple times in config list"
            )
        seen.add(model.name)
        _check_model(model)
    platforms = {m.name: platform(m) for m in before.model_config_list.config} if before else {}
    for model in config.model_config_list.config:
        _check_platform(model, platforms.get(model.name))


def platform(model):
    """The platform of a `ModelConfig`, also where it stands in the deprecated field."""
    if model.model_platform:
        return model.model_platform
    return "tensorflow" if model.model_type == model_server_config_pb2.TENSORFLOW else ""


def _check_model(model):
    if not os.path.isabs(model.base_path):
        raise errors.ServingError(
            f"Expected model {model.name} to have an absolute path or URI; got base_path()="
            f"{model.base_path}"
        )


def _check_platform(model, before):
    found = platform(model)
    if before is not None and found != before:
        raise errors.ServingError(
            f"Illegal to change a model's platform. For model {model.name} platform was {before} "
            f"and new platform requested is {found}"
        )
    if not found:
        raise errors.ServingError(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    if found != "tensorflow":
        raise errors.ServingError(f"Model {model.name} requests unsupported platform {found}")


class Watch:
    """A thread that puts a models.config in force again and again, as TF Serving does.

    What was refused, as a label on a version that is not loaded yet, is so taken over later.

    Args:
        path: of models.config.
        reload: `fn(config)`, raises errors.ServingError if it refuses.
        tell: `fn(line)`, told what became of the file when that is news.
    """

    def __init__(self, path, *, reload, tell):
        self._path = path
        self._reload = reload
        self._tell = tell
        self._known = self._read()
        self._refusal = None
        self._stopped = threading.Event()
        self._thread = None

    def start(self, seconds):
        """Begins to look.

        Args:
            seconds: float, time between two looks.
        """
        self._thread = threading.Thread(target=self._run, args=(seconds,), daemon=True)
        self._thread.start()

    def stop(self):
        """Ends the thread."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, seconds):
        while not self._stopped.wait(seconds):
            self.look()

    def look(self):
        """Takes over what the file says; tells what is new of it."""
        found = self._read()
        try:
            if isinstance(found, console.ExportError):
                raise found
            self._reload(found, is_active=lambda: not self._stopped.is_set())
        except (console.ExportError, errors.ServingError) as error:
            if str(error) != self._refusal:
                self._tell(f"Did not take over {self._path}: {error}")
            self._refusal = str(error)
            return
        if self._refusal is not None or found != self._known:
            self._tell(f"Took over {self._path}")
        self._known, self._refusal = found, None

    def _read(self):
        try:
            return read(self._path)
        except console.ExportError as error:
            return error
