"""TF Serving's configuration messages that its Python package lacks, described at run time.

In a descriptor pool of their own, so that another package that brings them does not clash. Only
names and types matter: the files are text.
"""

import functools

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.config import platform_config_pb2

__all__ = ["POOL_TYPES", "message", "pool"]

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FIELD.TYPE_BOOL,
    "int32": _FIELD.TYPE_INT32,
    "int64": _FIELD.TYPE_INT64,
    "string": _FIELD.TYPE_STRING,
}
_WRAPPERS = "google.protobuf."
_SERVING = "tensorflow.serving."

# Message: its fields as name: (number, type); "*" before a type: repeated.
_MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": (1, _WRAPPERS + "Int64Value"),
        "batch_timeout_micros": (2, _WRAPPERS + "Int64Value"),
        "max_enqueued_batches": (3, _WRAPPERS + "Int64Value"),
        "num_batch_threads": (4, _WRAPPERS + "Int64Value"),
        "thread_pool_name": (5, _WRAPPERS + "StringValue"),
        "allowed_batch_sizes": (6, "*int64"),
        "pad_variable_length_inputs": (7, "bool"),
        "enable_large_batch_splitting": (8, _WRAPPERS + "BoolValue"),
        "max_execution_batch_size": (9, _WRAPPERS + "Int64Value"),
    },
    "SessionBundleConfig": {
        "session_target": (1, "string"),
        "session_config": (2, "tensorflow.ConfigProto"),
        "batching_parameters": (3, _SERVING + "BatchingParameters"),
        "saved_model_tags": (6, "*string"),
        "enable_model_warmup": (779, "bool"),
    },
    "SavedModelBundleSourceAdapterConfig": {
        "legacy_config": (1000, _SERVING + "SessionBundleConfig"),
    },
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, _SERVING + "PrometheusConfig")},
}
POOL_TYPES = tuple(_MESSAGES)


def message(name):
    """A new message.

    Args:
        name: one of `POOL_TYPES`, or `PlatformConfigMap`.

    Returns:
        Protobuf message.

    Example:
        >>> config = message("MonitoringConfig")
        >>> config.prometheus_config.enable = True
        >>> print(str(config).strip())
        prometheus_config {
          enable: true
        }
    """
    found = pool().FindMessageTypeByName(_SERVING + name)
    return message_factory.GetMessageClass(found)()


@functools.cache
def pool():
    """The private descriptor pool.

    Returns:
        `google.protobuf.descriptor_pool.DescriptorPool`.
    """
    made = descriptor_pool.DescriptorPool()
    needed = [any_pb2, wrappers_pb2, config_pb2, platform_config_pb2]
    for module in needed:
        _add(made, module.DESCRIPTOR, set())
    file = descriptor_pb2.FileDescriptorProto(
        name="circle_tf/serving_config.proto", package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.extend(module.DESCRIPTOR.name for module in needed)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _describe(described.field.add(name=field, number=number), kind)
    made.AddSerializedFile(file.SerializeToString())
    return made


def _add(made, file, done):
    """Adds a file with everything it imports."""
    if file.name in done:
        return
    done.add(file.name)
    for needed in file.dependencies:
        _add(made, needed, done)
    made.AddSerializedFile(file.serialized_pb)


def _describe(field, kind):
    field.label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
    kind = kind.removeprefix("*")
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{kind}"
