r"""Writes TF Serving's batching, monitoring and platform files, or checks those that are there.

    python -m export.serving_files --output=models --batch_sizes=1,8,64
    python -m export.serving_files --check=models/models.config,models/batching.config

They are the files of export/deploy with their numbers filled in. A misspelt field, a bad list of
batch sizes, a label on a version that is not there: an error here, not on a server that does not
start.
"""

import os
import pathlib
import re
import shlex
import string
import textwrap

from absl import flags

from circle_tf.utils import files, quiet
from export.cli import console

TEMPLATES = pathlib.Path(__file__).parent / "deploy"
_LEAST = {  # Numbers of the batching parameters, and the least that each may be.
    "max_batch_size": 1,
    "num_batch_threads": 1,
    "max_enqueued_batches": 1,
    "batch_timeout_micros": 0,
}
_BATCHING = {
    *_LEAST,
    "allowed_batch_sizes",
    "enable_large_batch_splitting",
    "max_execution_batch_size",
    "pad_variable_length_inputs",
    "thread_pool_name",
    "value",
}
_FLAGS = {  # Of tensorflow_model_server, and the file that each takes.
    "--batching_parameters_file": "batching.config",
    "--platform_config_file": "platform.config",
    "--monitoring_config_file": "monitoring.config",
}
_ADAPTER = "tensorflow.serving.SavedModelBundleSourceAdapterConfig"
# Braces and what is between them, nested three deep: a session_config, whose hundreds of fields are
# TensorFlow's own and left to the server.
_BLOCK = r"{(?:[^{}]|{(?:[^{}]|{[^{}]*})*})*}"
# File: the fields that it may have.
FIELDS = {
    "batching.config": _BATCHING,
    "monitoring.config": {"prometheus_config", "enable", "path"},
    "platform.config": {
        *_BATCHING,
        *("platform_configs", "key", "source_adapter_config", "legacy_config"),
        *("session_target", "session_config", "batching_parameters"),
        *("saved_model_tags", "enable_model_warmup"),
    },
}


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("output", None, "Folder to write the files to.")
    flags.DEFINE_list("check", [], "Files to check instead.")
    flags.DEFINE_list("batch_sizes", ["1", "8", "64"], "Ascending; as given to export.publish.")
    flags.DEFINE_integer("timeout_micros", 1000, "How long a request waits for others.")
    flags.DEFINE_integer("threads", os.cpu_count() or 1, "Batches that run at a time.")
    flags.DEFINE_integer("queue", 100, "Batches that may wait before requests are refused.")


def main(argv):
    """Writes or checks, and tells the server's flags."""
    del argv
    options = flags.FLAGS
    if bool(options.output) == bool(options.check):
        raise console.ExportError("Give either --output=FOLDER or --check=FILE,...")
    if options.check:
        return _check(options.check)
    try:
        sizes = [int(size) for size in options.batch_sizes]
    except ValueError as error:
        raise console.ExportError(f"--batch_sizes: {options.batch_sizes} ({error}).") from error
    made = fill(
        batch_sizes=sizes,
        timeout_micros=options.timeout_micros,
        threads=options.threads,
        queue=options.queue,
    )
    for name, text in made.items():
        path = os.path.join(options.output, name)
        with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
            stream.write(text)
        print(f"Wrote {path}")
    batching, platform, monitoring = (
        shlex.quote(f"{flag}={os.path.abspath(os.path.join(options.output, name))}")
        for flag, name in _FLAGS.items()
    )
    print(f"For tensorflow_model_server, either\n  --enable_batching {batching}")
    print(f"or, with threads and warm-up in one file,\n  {platform}\nand\n  {monitoring}")


def fill(*, batch_sizes, timeout_micros, threads, queue):
    """The files, from their templates.

    Args:
        batch_sizes: ascending ints; a batch is padded to the next of them.
        timeout_micros: int, how long a request waits for others, microseconds.
        threads: int, batches that run at a time.
        queue: int, batches that may wait; more requests are answered UNAVAILABLE.

    Returns:
        dict of name to text.

    Raises:
        console.ExportError: a number that a server would refuse.
    """
    texts = {name: string.Template((TEMPLATES / name).read_text("utf-8")) for name in FIELDS}
    batching = texts["batching.config"].substitute(
        allowed_batch_sizes="\n".join(f"allowed_batch_sizes: {size}" for size in batch_sizes),
        max_batch_size=max(batch_sizes, default=0),
        timeout_micros=timeout_micros,
        threads=threads,
        queue=queue,
    )
    check("batching.config", batching)
    parameters = "\n".join(line for line in batching.splitlines() if not line.startswith("#"))
    return {
        "batching.config": batching,
        "monitoring.config": texts["monitoring.config"].substitute(),
        "platform.config": texts["platform.config"].substitute(
            batching=textwrap.indent(parameters, 12 * " ")
        ),
    }


def check(path, text):
    """Refuses what would make a server not start, or be slow.

    Args:
        path: the file, of whose name it is one of `FIELDS`.
        text: what is in it.

    Raises:
        console.ExportError: an unknown field, a bad number, or something is missing.
    """
    name = os.path.basename(path)
    text = re.sub("#.*", "", text).replace("'", '"')
    text = re.sub(rf"session_config\s*:?\s*{_BLOCK}", "", text)
    bare = re.sub('"[^"]*"', '""', text)
    words = re.findall(r"(\w+)\s*[:{<]", bare)
    faults = [f'there is no field named "{word}"' for word in words if word not in FIELDS[name]]
    if bare.count("{") != bare.count("}"):
        faults.append("its braces do not match")
    if name == "batching.config" or "batching_parameters" in text:
        faults += _batching_faults(text)
    if name == "monitoring.config":
        faults += _monitoring_faults(text)
    if name == "platform.config":
        faults += _platform_faults(text)
    if faults:
        raise console.ExportError(f"{path}: " + "; ".join(faults) + ".")


def _batching_faults(text):
    numbers = dict(re.findall(r"(\w+)\s*:?\s*{\s*value\s*:\s*(-?\d+)\s*}", text))
    for name, least in _LEAST.items():
        if name in numbers and int(numbers[name]) < least:
            yield f"{name} must be {least} or more; found {numbers[name]}"
        if name not in numbers and re.search(rf"\b{name}\b", text):
            yield f"{name} must be a whole number, written {name} {{ value: 8 }}"
    listed = re.findall(r"allowed_batch_sizes\s*:\s*(\[[^\]]*\]|[^\s},;]+)", text)
    try:
        sizes = [int(size) for size in re.findall(r"[^\s,\[\]]+", " ".join(listed))]
    except ValueError:
        yield f"allowed_batch_sizes must be whole numbers; found {', '.join(listed)}"
        return
    most = numbers.get("max_batch_size")
    if "max_batch_size" not in text:
        yield "max_batch_size is missing (TF Serving's own is 1000)"
    elif sizes and most and sizes[-1] != int(most):
        yield f"the last of allowed_batch_sizes, {sizes[-1]}, must be max_batch_size, {most}"
    if sizes != sorted(set(sizes)) or min(sizes, default=1) < 1:
        yield f"allowed_batch_sizes must be 1 or more and strictly increasing; found {sizes}"


def _monitoring_faults(text):
    if not re.search(r"\benable\s*:\s*true", text):
        yield "prometheus_config does not enable anything"
    for path in re.findall(r'\bpath\s*:\s*"([^"]*)"', text):
        if not path.startswith("/"):
            yield f"prometheus_config.path must begin with /; found {path!r}"


def _platform_faults(text):
    if (keys := re.findall(r'\bkey\s*:\s*"([^"]*)"', text)) != ["tensorflow"]:
        yield f"it must configure 'tensorflow'; found {keys}"
        return
    if f"[type.googleapis.com/{_ADAPTER}]" not in text:
        yield f"source_adapter_config must hold a {_ADAPTER}"
    if not re.search(r"\benable_model_warmup\s*:\s*true", text):
        yield "enable_model_warmup is off: first requests will be slow"


def _check(paths):
    for path in paths:
        if os.path.basename(path) in FIELDS:
            check(path, pathlib.Path(path).read_text("utf-8"))
        else:
            quiet.import_tensorflow()
            from export.rollout import models_config

            models_config.load(path)
        print(f"{path} is right.")


if __name__ == "__main__":
    define_flags()
    console.run(main)
