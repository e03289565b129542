"""models.config: which versions of which models are served, under which labels.

The text form of TF Serving's `ModelServerConfig`, for `--model_config_file` and for
`python -m export.serve --models_config`. Versions are always listed one by one: with TF Serving's
policy `latest`, a broken new version evicts a good one and leaves its label dangling.
"""

import contextlib
import os

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from circle_tf.utils import files
from export.cli import console
from export.rollout import versions

__all__ = [
    "CANARY",
    "PREVIOUS",
    "STABLE",
    "check_there",
    "lint",
    "load",
    "locked",
    "model",
    "read",
    "set_labels",
    "waiting",
    "write",
]

STABLE, CANARY, PREVIOUS = "stable", "canary", "previous"
_PLATFORM = "tensorflow"


def load(path):
    """Reads and lints a models.config.

    Args:
        path: the file.

    Returns:
        `ModelServerConfig`.

    Raises:
        console.ExportError: no such file, a field that does not exist, or what `lint` finds.
    """
    check_there(path)
    config = read(path)
    if found := lint(config):
        raise console.ExportError(f"{path}: " + "; ".join(found) + ".")
    return config


def check_there(path):
    """Says what to do where there is no models.config.

    Args:
        path: the file.

    Raises:
        console.ExportError: it is not there.
    """
    if not os.path.exists(path):
        raise console.ExportError(
            f"There is no {path!r}. python -m export.publish writes it with the first version."
        )


def read(path):
    """Parses a models.config; what it lists is not checked.

    Args:
        path: the file.

    Returns:
        `ModelServerConfig`.

    Raises:
        console.ExportError: no such file, a misspelt field, a bad value; with line and column.
    """
    try:
        with open(path, encoding="utf-8") as file:
            return text_format.Parse(file.read(), model_server_config_pb2.ModelServerConfig())
    except OSError as error:
        raise console.ExportError(f"{path} cannot be read: {error.strerror}.") from error
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise console.ExportError(
            f"{path} is not a ModelServerConfig as protobuf text: {error}"
        ) from error


def lint(config, *, look=True):
    """What would make a server refuse or regret a config.

    Args:
        config: `ModelServerConfig`.
        look: whether to look for the versions on the disk; False if it is another machine's.

    Returns:
        List of str, empty if nothing is wrong.
    """
    found, names = [], [entry.name for entry in config.model_config_list.config]
    if not names:
        found.append("it lists no model (model_config_list)")
    found += [
        f"model {n} is listed twice" for n in sorted({n for n in names if names.count(n) > 1})
    ]
    for entry in config.model_config_list.config:
        found += [f"model {entry.name or '?'}: {fault}" for fault in _faults(entry, look=look)]
    return found


def _faults(entry, *, look):
    listed = list(entry.model_version_policy.specific.versions)
    if not entry.name:
        yield "it has no name"
    if not os.path.isabs(entry.base_path):
        yield f"base_path {entry.base_path!r} is not an absolute path"
    if entry.model_platform != _PLATFORM:
        yield f"model_platform must be {_PLATFORM!r}; found {entry.model_platform!r}"
    if not listed:
        yield "model_version_policy must list specific versions"
    if len(listed) != len(set(listed)):
        yield f"versions are listed twice: {listed}"
    for label, version in sorted(entry.version_labels.items()):
        if version not in listed:
            yield f"label {label} is on version {version}, which is not among {listed}"
    if look and os.path.isabs(entry.base_path):
        for version in sorted(set(listed) - set(versions.existing(entry.base_path))):
            yield f"version {version} is not in {entry.base_path}"


def model(config, name):
    """The entry of a model.

    Args:
        config: `ModelServerConfig`.
        name: the model's.

    Returns:
        `ModelConfig`, or None if it is not listed.
    """
    found = [entry for entry in config.model_config_list.config if entry.name == name]
    return found[0] if found else None


def waiting(entry):
    """The version that is listed to be loaded, and gets its label when it is.

    Args:
        entry: `ModelConfig`.

    Returns:
        int, the highest listed one if it is above all that have a label, else None.
    """
    labelled = set(entry.version_labels.values())
    highest = max({*entry.model_version_policy.specific.versions, *labelled}, default=None)
    return None if highest in labelled else highest


def set_labels(config, *, name, base_path, labels, versions=()):
    """Lists a model with exactly the versions that have a label, and others that are given.

    Args:
        config: `ModelServerConfig` to change.
        name: the model's.
        base_path: where its versions are.
        labels: dict of label to version.
        versions: versions to list without a label.
    """
    entry = model(config, name)
    if entry is None:
        entry = config.model_config_list.config.add(name=name)
    entry.base_path = os.path.abspath(base_path)
    entry.model_platform = _PLATFORM
    entry.ClearField("model_version_policy")
    listed = sorted({*labels.values(), *versions})
    entry.model_version_policy.specific.versions.extend(listed)
    entry.version_labels.clear()
    for label, version in sorted(labels.items()):
        entry.version_labels[label] = version


@contextlib.contextmanager
def locked(path, *, tell):
    """A models.config that nobody else changes meanwhile; `write` puts a change in force.

    Args:
        path: the file; need not exist.
        tell: `fn(line)`, called if another process has to be waited for.

    Yields:
        `ModelServerConfig`; empty if there is no file.

    Raises:
        console.ExportError: the file cannot be read.
    """
    folder, name = os.path.split(os.path.abspath(path))
    with versions.exclusive(folder, name=f".{name}.lock", tell=tell):
        config = model_server_config_pb2.ModelServerConfig()
        if os.path.exists(path):
            config = read(path)
        yield config


def write(path, config):
    """Writes a models.config: servers see it as before or as after, nothing between.

    Args:
        path: the file; need not exist.
        config: `ModelServerConfig`.

    Raises:
        console.ExportError: a server would refuse or regret it; the file is left as it is.
    """
    if found := lint(config):
        raise console.ExportError(f"{path} is left as it is: " + "; ".join(found) + ".")
    with files.replacing(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(text_format.MessageToString(config))
            file.flush()
            os.fsync(file.fileno())
