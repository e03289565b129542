"""Which versions are served: a new one as canary, promoted to stable, rolled back, pruned.

A model's labels in models.config: `stable` (clients' version), `canary` (newest, on trial) and
`previous` (what was stable before, kept loaded so that a rollback is instant). TF Serving refuses a
configuration that moves a label to a version that is not loaded, and then loads nothing of it; so
a version is listed first, and labelled when servers say that they have loaded it.
"""

import copy
import os
import shutil

from circle_tf.utils import command_lines
from export.cli import console
from export.client import transports
from export.rollout import models_config, versions

__all__ = [
    "add",
    "default_config",
    "model_name",
    "promote",
    "prune",
    "report",
    "rollback",
    "settle",
]

STABLE, CANARY, PREVIOUS = models_config.STABLE, models_config.CANARY, models_config.PREVIOUS


def default_config(base_path):
    """models.config beside a base path.

    Args:
        base_path: directory of a model's versions.

    Returns:
        str.

    Example:
        >>> default_config("/models/glyphs")
        '/models/models.config'
    """
    return os.path.join(os.path.dirname(os.path.abspath(base_path)), "models.config")


def model_name(base_path):
    """The name a model is served by: its directory's.

    Args:
        base_path: directory of a model's versions.

    Returns:
        str.
    """
    return os.path.basename(os.path.abspath(base_path))


def add(base_path, *, version, config, servers=(), tell=print):
    """Lists a new version: as `stable` if it is the model's first, else as `canary`.

    Servers give a label to a version that is loaded and to no other. Without one to ask, a version
    that is not the model's first is therefore only listed, and waits for its label; see `settle`.

    Args:
        base_path: directory of the model's versions.
        version: int, an existing one.
        config: path of models.config.
        servers: `servers.Server`s that follow it.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: models.config would be wrong, or a server does not follow; then
            models.config is as it was.
    """

    def change(labels, waiting):
        del waiting
        if version == labels.get(STABLE):
            raise console.ExportError(
                f"Version {version} of {model_name(base_path)} is stable already; a canary is "
                "another version."
            )
        return {**labels, CANARY if STABLE in labels else STABLE: version}

    return _change(base_path, config=config, change=change, servers=servers, tell=tell)


def settle(base_path, *, config, servers=(), loaded=False, tell=print):
    """Makes servers and models.config agree; a version that waits for its label gets it.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        servers: `servers.Server`s that follow it.
        loaded: whether it is known from elsewhere that they have loaded the version that waits.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: models.config does not list the model, or as for `add`.
    """
    models_config.check_there(config)

    def change(labels, waiting):
        if not labels and waiting is None:
            raise console.ExportError(
                f"{config} does not list {model_name(base_path)}. Publish a version first."
            )
        if waiting is None:
            return labels
        return {**labels, CANARY if STABLE in labels else STABLE: waiting}

    return _change(
        base_path, config=config, change=change, servers=servers, loaded=loaded, tell=tell
    )


def promote(base_path, *, config, version=None, servers=(), tell=print):
    """Makes the canary the stable version; what was stable becomes `previous`.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        version: int, the version that is expected to be the canary; None for whichever is.
        servers: `servers.Server`s that follow it.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: there is no canary, it is another version, or as for `add`.
    """
    models_config.check_there(config)

    def change(labels, waiting):
        canary = labels.pop(CANARY, None)
        if canary is None:
            raise console.ExportError(
                f"{config}: {model_name(base_path)} has no canary to promote; its labels are "
                f"{_shown(labels)}. " + _without_canary(base_path, waiting)
            )
        if version not in (None, canary):
            raise console.ExportError(
                f"The canary of {model_name(base_path)} is version {canary}, not {version}: a "
                "version is tried as canary before it becomes stable."
            )
        if labels.get(STABLE, canary) != canary:
            labels[PREVIOUS] = labels[STABLE]
        if waiting is not None:
            labels[CANARY] = waiting
        return {**labels, STABLE: canary}

    return _change(base_path, config=config, change=change, servers=servers, tell=tell)


def rollback(base_path, *, config, servers=(), tell=print):
    """Drops the canary if there is one; else makes the previous version stable again.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        servers: `servers.Server`s that follow it.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: there is nothing to go back to, or as for `add`.
    """
    models_config.check_there(config)

    def change(labels, waiting):
        if STABLE in labels and (CANARY in labels or waiting is not None):
            return {label: version for label, version in labels.items() if label != CANARY}
        if PREVIOUS not in labels:
            raise console.ExportError(
                f"{config}: {model_name(base_path)} has neither a canary to drop nor a previous "
                f"version to go back to; its labels are {_shown(labels)}."
            )
        labels[STABLE] = labels.pop(PREVIOUS)
        return labels

    return _change(base_path, config=config, change=change, servers=servers, tell=tell)


def prune(base_path, *, config, keep, servers=(), tell=print):
    """Removes old versions, never the last one nor one that models.config or a server has.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        keep: int of 1 or more, how many of the newest to keep besides those listed.
        servers: `servers.Server`s whose versions are kept as well.
        tell: `fn(line)` for progress.

    Returns:
        Ascending list of the versions removed.

    Raises:
        console.ExportError: there is no models.config that lists the model.
    """
    if keep < 1:
        raise console.ExportError(f"--keep must be 1 or more; found {keep}.")
    models_config.check_there(config)
    with (
        versions.exclusive(base_path, tell=tell),
        models_config.locked(config, tell=tell) as content,
    ):
        entry = models_config.model(content, model_name(base_path))
        if entry is None:
            raise console.ExportError(
                f"{config} does not list {model_name(base_path)}, so it is not known which of its "
                "versions are served. Nothing was removed."
            )
        _check_same(entry, base_path, config)
        served = {*entry.model_version_policy.specific.versions, *entry.version_labels.values()}
        served = served.union(*(server.loaded() for server in servers))
        existing = versions.existing(base_path)
        removed = [version for version in existing[:-keep] if version not in served]
        for version in removed:
            _remove(base_path, version)
    return removed


def report(base_path, *, labels, config):
    """The labels of a model, in lines for people.

    Args:
        base_path: directory of the model's versions.
        labels: dict of label to version.
        config: path of models.config.

    Returns:
        str.
    """
    lines = [f"  {label:<9} version {version}" for label, version in sorted(labels.items())]
    entry = models_config.model(models_config.read(config), model_name(base_path))
    if (waiting := models_config.waiting(entry)) is not None:
        lines.append(f"  no label  version {waiting}, until servers have loaded it")
    return "\n".join([f"{model_name(base_path)} in {config}:", *lines])


def _remove(base_path, version):
    """First out of the servers' sight, whole, then from the disk."""
    hidden = os.path.join(base_path, f"{versions.STAGE_PREFIX}pruned-{version}")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(versions.path(base_path, version), hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _change(base_path, *, config, change, servers, loaded=False, tell):
    """Puts the labels of `change(labels, waiting)` in force, as far as it is safe."""
    with models_config.locked(config, tell=tell) as content:
        entry = models_config.model(content, model_name(base_path))
        before, waiting = {}, None
        if entry is not None:
            _check_same(entry, base_path, config)
            before, waiting = dict(entry.version_labels), models_config.waiting(entry)
        wanted = change(dict(before), waiting)
        if servers:
            _roll_out(base_path, config, content, before=before, wanted=wanted, servers=servers)
            return wanted
        labels = wanted if loaded or not before else _without_asking(wanted, before=before)
        _list(content, base_path, labels=labels, versions=wanted.values())
        models_config.write(config, content)
    return labels


def _without_asking(wanted, *, before):
    """The labels of versions that had one, and so are loaded; others stay where they are."""
    loaded = set(before.values())
    labels = {label: version for label, version in wanted.items() if version in loaded}
    for label in wanted.keys() & before.keys() - labels.keys():
        if before[label] not in wanted.values():
            labels[label] = before[label]
    return labels


def _roll_out(base_path, config, content, *, before, wanted, servers):
    """Versions first; labels when every server has loaded them; then old versions go."""
    first, every = copy.deepcopy(content), {*before.values(), *wanted.values()}
    try:
        _list(content, base_path, labels=before, versions=every)
        models_config.write(config, content)
        for server in servers:  # Which may have other labels, if it refused a change before.
            has = server.labels({*before, *wanted})
            server.reload(_list(copy.deepcopy(content), base_path, labels=has, versions=every))
        for server in servers:
            server.wait_until_loaded(wanted.values())
        for listed in (every, ()):
            _list(content, base_path, labels=wanted, versions=listed)
            models_config.write(config, content)
            for server in servers:
                server.reload(content)
                server.check_labels(wanted)
    except BaseException as error:
        differ = _put_back(config, first, servers)
        if isinstance(error, transports.ServerError):
            raise console.ExportError(f"{error.message}. {config} is as it was{differ}.") from error
        raise


def _put_back(config, content, servers):
    """Takes a change back; returns the servers that do not follow, in words."""
    if content.model_config_list.config:
        models_config.write(config, content)
    elif os.path.exists(config):
        os.remove(config)
    differ = []
    for server in servers:
        try:
            server.reload(content)
        except transports.ServerError as error:
            differ.append(f"{server.target} is not ({error.message})")
    return "".join(f"; {line}" for line in differ)


def _list(content, base_path, *, labels, versions):
    """Changes the model's entry of a configuration, and returns that."""
    name = model_name(base_path)
    models_config.set_labels(
        content, name=name, base_path=base_path, labels=labels, versions=versions
    )
    return content


def _without_canary(base_path, waiting):
    if waiting is None:
        return "Publish a version first."
    options = f"--base_path={base_path}", "--server=HOST:PORT"
    labels = command_lines.python_module("export.labels", *options)
    return f"Version {waiting} waits until servers have loaded it: {labels}"


def _check_same(entry, base_path, config):
    if os.path.realpath(entry.base_path) != os.path.realpath(base_path):
        raise console.ExportError(
            f"{config} lists {entry.name} at {entry.base_path}, not at "
            f"{os.path.abspath(base_path)}. Give another --models_config, or the same --base_path."
        )


def _shown(labels):
    return ", ".join(f"{label} {version}" for label, version in sorted(labels.items())) or "none"
