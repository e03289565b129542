"""TF Serving's batching, monitoring and platform files, written and linted through protos."""

import os

from google.protobuf import text_format

from circle_tf.utils import files
from export.cli import console
from export.rollout import serving_protos

__all__ = ["KINDS", "batching", "lint", "monitoring", "platform", "read", "write"]

METRICS_PATH = "/monitoring/prometheus/metrics"

# File: the message it holds.
KINDS = {
    "batching.config": "BatchingParameters",
    "monitoring.config": "MonitoringConfig",
    "platform.config": "PlatformConfigMap",
}


def batching(*, batch_sizes, timeout_micros, threads, queue):
    """How a server puts requests together, for `--batching_parameters_file`.

    Args:
        batch_sizes: ascending ints; a batch is padded to the next of them.
        timeout_micros: int, how long a request waits for others, microseconds.
        threads: int, batches that run at a time.
        queue: int, batches that may wait; more requests are answered UNAVAILABLE.

    Returns:
        `BatchingParameters`.

    Raises:
        console.ExportError: what `lint` finds.
    """
    made = serving_protos.message("BatchingParameters")
    made.allowed_batch_sizes.extend(batch_sizes)
    made.max_batch_size.value = max(batch_sizes, default=0)
    made.batch_timeout_micros.value = timeout_micros
    made.num_batch_threads.value = threads
    made.max_enqueued_batches.value = queue
    _check(made, "batching.config")
    return made


def monitoring():
    """Prometheus metrics on the REST port, for `--monitoring_config_file`.

    Returns:
        `MonitoringConfig`.
    """
    made = serving_protos.message("MonitoringConfig")
    made.prometheus_config.enable = True
    made.prometheus_config.path = METRICS_PATH
    return made


def platform(*, batching=None, intra_op=0, inter_op=0):
    """How a server opens models, for `--platform_config_file`; it takes the place of other flags.

    A server given this file ignores --enable_batching, --batching_parameters_file,
    --enable_model_warmup and the thread flags: they are all in it.

    Args:
        batching: `BatchingParameters`, or None to run each request on its own.
        intra_op: int, threads that one operation uses; 0: all cores.
        inter_op: int, operations that run at a time; 0: all cores.

    Returns:
        `PlatformConfigMap`.
    """
    adapter = serving_protos.message("SavedModelBundleSourceAdapterConfig")
    session = adapter.legacy_config
    session.saved_model_tags.append("serve")
    session.enable_model_warmup = True
    session.session_config.intra_op_parallelism_threads = intra_op
    session.session_config.inter_op_parallelism_threads = inter_op
    if batching is not None:
        session.batching_parameters.CopyFrom(batching)
    made = serving_protos.message("PlatformConfigMap")
    made.platform_configs["tensorflow"].source_adapter_config.Pack(adapter)
    return made


def read(path, *, kind=None):
    """Reads and lints a file.

    Args:
        path: the file.
        kind: a message of `KINDS`; default: by the file's name.

    Returns:
        The message.

    Raises:
        console.ExportError: unknown kind, a misspelt field or bad value, or what `lint` finds.
    """
    kind = kind or KINDS.get(os.path.basename(path))
    if kind not in KINDS.values():
        raise console.ExportError(
            f"{path}: expected a file named {', '.join(KINDS)}, or models.config."
        )
    made = serving_protos.message(kind)
    with open(path, encoding="utf-8") as file:
        try:
            text_format.Parse(file.read(), made, descriptor_pool=serving_protos.pool())
        except text_format.ParseError as error:
            raise console.ExportError(f"{path} cannot be read: {error}") from error
    _check(made, path)
    return made


def write(path, content):
    """Writes a message as text, whole or not at all.

    Args:
        path: the file.
        content: the message.
    """
    text = text_format.MessageToString(content, descriptor_pool=serving_protos.pool())
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)


def lint(content):
    """What would make a server refuse or regret a file.

    Args:
        content: a message of `KINDS`.

    Returns:
        List of str, empty if nothing is wrong.
    """
    kind = content.DESCRIPTOR.name
    if kind == "BatchingParameters":
        return list(_batching_faults(content))
    if kind == "MonitoringConfig":
        return list(_monitoring_faults(content.prometheus_config))
    return list(_platform_faults(content))


def _batching_faults(content):
    sizes = list(content.allowed_batch_sizes)
    if not content.HasField("max_batch_size"):
        yield "max_batch_size is missing (TF Serving's own is 1000)"
    elif content.max_batch_size.value < 1:
        yield f"max_batch_size must be 1 or more; found {content.max_batch_size.value}"
    elif sizes and sizes[-1] != content.max_batch_size.value:
        yield (
            f"the last of allowed_batch_sizes, {sizes[-1]}, must be max_batch_size, "
            f"{content.max_batch_size.value}"
        )
    if sizes != sorted(set(sizes)) or min(sizes, default=1) < 1:
        yield f"allowed_batch_sizes must be 1 or more and strictly increasing; found {sizes}"
    for name in ("num_batch_threads", "max_enqueued_batches"):
        if content.HasField(name) and getattr(content, name).value < 1:
            yield f"{name} must be 1 or more; found {getattr(content, name).value}"
    if content.batch_timeout_micros.value < 0:
        yield f"batch_timeout_micros must be 0 or more; found {content.batch_timeout_micros.value}"


def _monitoring_faults(prometheus):
    if not prometheus.enable:
        yield "prometheus_config does not enable anything"
    if prometheus.path and not prometheus.path.startswith("/"):
        yield f"prometheus_config.path must begin with /; found {prometheus.path!r}"


def _platform_faults(content):
    if list(content.platform_configs) != ["tensorflow"]:
        yield f"it must configure 'tensorflow'; found {sorted(content.platform_configs)}"
        return
    packed = content.platform_configs["tensorflow"].source_adapter_config
    adapter = serving_protos.message("SavedModelBundleSourceAdapterConfig")
    if not packed.Unpack(adapter):
        yield f"source_adapter_config holds {packed.type_url or 'nothing'}"
        return
    if not adapter.legacy_config.enable_model_warmup:
        yield "enable_model_warmup is off: first requests will be slow"
    if adapter.legacy_config.HasField("batching_parameters"):
        yield from _batching_faults(adapter.legacy_config.batching_parameters)


def _check(content, path):
    if found := lint(content):
        raise console.ExportError(f"{path}: " + "; ".join(found) + ".")
