"""Which versions are served: a new one as canary, promoted to stable, rolled back, pruned.

A model's labels in models.config: `stable` (clients' version), `canary` (newest, on trial) and
`previous` (what was stable before, kept loaded so that a rollback is instant).
"""

import os
import shutil

from export.cli import console
from export.rollout import models_config, versions

__all__ = ["add", "default_config", "model_name", "promote", "prune", "report", "rollback"]

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


def add(base_path, *, version, config, tell=print):
    """Lists a new version: as `stable` if it is the model's first, else as `canary`.

    Args:
        base_path: directory of the model's versions.
        version: int, an existing one.
        config: path of models.config.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.
    """

    def change(labels):
        return {**labels, CANARY if STABLE in labels else STABLE: version}

    return _change(base_path, config=config, change=change, tell=tell)


def promote(base_path, *, config, version=None, tell=print):
    """Makes the canary the stable version; what was stable becomes `previous`.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        version: int, the version that is expected to be the canary; None for whichever is.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: there is no canary, or it is another version.
    """
    models_config.check_there(config)

    def change(labels):
        canary = labels.get(CANARY)
        if canary is None:
            raise console.ExportError(
                f"{config}: {model_name(base_path)} has no canary to promote; its labels are "
                f"{_shown(labels)}. Publish a version first."
            )
        if version not in (None, canary):
            raise console.ExportError(
                f"The canary of {model_name(base_path)} is version {canary}, not {version}: a "
                "version is tried as canary before it becomes stable."
            )
        kept = {PREVIOUS: labels[STABLE]} if labels.get(STABLE, canary) != canary else {}
        return {**kept, STABLE: canary}

    return _change(base_path, config=config, change=change, tell=tell)


def rollback(base_path, *, config, tell=print):
    """Drops the canary if there is one; else makes the previous version stable again.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        tell: `fn(line)` for progress.

    Returns:
        dict of label to version.

    Raises:
        console.ExportError: there is nothing to go back to.
    """
    models_config.check_there(config)

    def change(labels):
        if CANARY in labels and STABLE in labels:
            return {label: version for label, version in labels.items() if label != CANARY}
        if PREVIOUS not in labels:
            raise console.ExportError(
                f"{config}: {model_name(base_path)} has neither a canary to drop nor a previous "
                f"version to go back to; its labels are {_shown(labels)}."
            )
        return {STABLE: labels[PREVIOUS]}

    return _change(base_path, config=config, change=change, tell=tell)


def prune(base_path, *, config, keep, tell=print):
    """Removes old versions, never the last one nor one that models.config lists.

    Args:
        base_path: directory of the model's versions.
        config: path of models.config.
        keep: int of 1 or more, how many of the newest to keep besides those listed.
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
        models_config.changing(config, tell=tell) as content,
    ):
        entry = models_config.model(content, model_name(base_path))
        if entry is None:
            raise console.ExportError(
                f"{config} does not list {model_name(base_path)}, so it is not known which of its "
                "versions are served. Nothing was removed."
            )
        _check_same(entry, base_path, config)
        served = {*entry.model_version_policy.specific.versions, *entry.version_labels.values()}
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
    return "\n".join([f"{model_name(base_path)} in {config}:", *lines])


def _remove(base_path, version):
    """First out of the servers' sight, whole, then from the disk."""
    hidden = os.path.join(base_path, f"{versions.STAGE_PREFIX}pruned-{version}")
    shutil.rmtree(hidden, ignore_errors=True)
    os.rename(versions.path(base_path, version), hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _change(base_path, *, config, change, tell):
    name = model_name(base_path)
    with models_config.changing(config, tell=tell) as content:
        entry = models_config.model(content, name)
        labels = {}
        if entry is not None:
            _check_same(entry, base_path, config)
            labels = dict(entry.version_labels)
        labels = change(labels)
        models_config.set_labels(content, name=name, base_path=base_path, labels=labels)
    return labels


def _check_same(entry, base_path, config):
    if os.path.realpath(entry.base_path) != os.path.realpath(base_path):
        raise console.ExportError(
            f"{config} lists {entry.name} at {entry.base_path}, not at "
            f"{os.path.abspath(base_path)}. Give another --models_config, or the same --base_path."
        )


def _shown(labels):
    return ", ".join(f"{label} {version}" for label, version in sorted(labels.items())) or "none"
