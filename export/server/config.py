"""The server's configuration: models.config as TF Serving reads it, and its checks."""

import os

import grpc
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from export.cli import console
from export.server import errors

__all__ = ["check", "for_model", "read"]


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
    """Reads a models.config.

    Args:
        path: file with a ModelServerConfig as protobuf text.

    Returns:
        `ModelServerConfig`.

    Raises:
        console.ExportError: it cannot be read or parsed, or lists nothing.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except OSError as error:
        raise console.ExportError(f"{path} cannot be read: {error.strerror}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise console.ExportError(
            f"{path} is not a ModelServerConfig as protobuf text: {error}"
        ) from error
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
