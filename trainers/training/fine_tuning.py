"""The section `fine_tune` of a recipe: its schedule, and features from a cache."""

import dataclasses
import functools
import os

import tqdm

from circle_tf import fine_tuning
from circle_tf.fine_tuning import digests
from trainers.cli import commands
from trainers.outputs import workdir as workdirs

__all__ = ["build", "cached", "check_cache", "describe"]

_SOUGHT = {"queries", "gallery"}
_PARTS = ("train", "test", *sorted(_SOUGHT))


def build(config, backbone):
    """The schedule of a run.

    Args:
        config: the `fine_tune` section of a recipe.
        backbone: keras.Model of which the trained model has the layers.

    Returns:
        circle_tf.fine_tuning.FineTuning; None where the section leaves all as it is.

    Raises:
        ValueError: no such block, a number out of range.

    Example:
        >>> from circle_tf import backbones
        >>> from configs import base
        >>> build(base.get_config().fine_tune, backbones.build("conv4", (32, 32, 1))) is None
        True
    """
    options = {
        "freeze_steps": config.freeze_steps,
        "unfreeze_from": _place(config.unfreeze_from),
        "learning_rate_factor": config.learning_rate_factor,
        "layer_decay": config.layer_decay,
        "freeze_batch_normalization": config.freeze_batch_normalization,
    }
    plain = (0, None, 1.0, 1.0, False)
    return None if tuple(options.values()) == plain else fine_tuning.FineTuning(backbone, **options)


def check_cache(config):
    """Refuses a cache of features where the images, or the backbone, change.

    Args:
        config: recipe.

    Raises:
        commands.ConfigError: they do; the reason.
    """
    tune = config.fine_tune
    if not tune.cache_features:
        if tune.cache_path:
            raise commands.ConfigError(
                "fine_tune.cache_path is for fine_tune.cache_features=True: leave it empty."
            )
        return
    if _place(tune.unfreeze_from) != 1:
        found = f"from {tune.unfreeze_from!r} up" if tune.unfreeze_from else "as a whole"
        raise commands.ConfigError(
            "fine_tune.cache_features computes what the backbone gives once: it must stay frozen "
            f"for the whole run, and trains {found} after step {tune.freeze_steps}. Set "
            "fine_tune.unfreeze_from=1, which freezes it and its BatchNormalization for good."
        )
    changed = [name for name, amount in config.augment.items() if amount and name != "fill_value"]
    if changed:
        raise commands.ConfigError(
            "fine_tune.cache_features computes the features of each image once, and augmentation "
            f"makes another image of it in each step: set {_switches(changed)}, or train without "
            "the cache."
        )


def describe(tuning):
    """What a schedule does to the backbone, in a line.

    Args:
        tuning: circle_tf.fine_tuning.FineTuning.

    Returns:
        str.
    """
    rates = [block.learning_rate_factor for block in tuning.blocks if block.learning_rate_factor]
    if not rates:
        return "Fine-tuning: the backbone is frozen."
    frozen = f"frozen for the first {tuning.freeze_steps} updates, then " * bool(
        tuning.freeze_steps
    )
    rate = f"{min(rates):.3g}" + (f" to {max(rates):.3g}" if max(rates) != min(rates) else "")
    return (
        f"Fine-tuning: the backbone is {frozen}trained in {len(rates)} of its "
        f"{len(tuning.blocks)} blocks, at {rate} of the learning rate."
    )


def cached(config, dataset, backbone, *, files, write=True):
    """A data set of features in place of images, computed where the cache has not got them.

    Args:
        config: recipe.
        dataset: trainers.datasets.Dataset.
        backbone: keras.Model.
        files: trainers.outputs.workdir.Workdir, locked.
        write: whether this process writes down which backbone it is. Of several workers each has a
            cache, in a folder of its machine or in one they share.

    Returns:
        trainers.datasets.Dataset, whose splits have features `[N, F]` as images in memory.

    Raises:
        commands.ConfigError: the run began with another backbone.
        trainers.datasets.DataError: an image cannot be decoded; it is named.
        OSError: the disk is full, or nothing may be written there.
    """
    _check_backbone(backbone, files, write=write)
    folder = config.fine_tune.cache_path or os.path.join(files.path, "features")
    print(f"Features of the frozen backbone are kept in {folder}.", flush=True)
    parts = {name: getattr(dataset, name) for name in _PARTS}
    # Those of re-identification are too large to be looked at while training.
    unused = set() if parts["queries"] is None or parts["queries"].cameras is None else _SOUGHT
    parts = {
        name: _cached_split(split, backbone, folder, name=name)
        for name, split in parts.items()
        if name not in unused and split is not None and len(split)
    }
    return dataclasses.replace(dataset, image_shape=tuple(backbone.output.shape[1:]), **parts)


def _cached_split(split, backbone, folder, *, name):
    with split.naming_unreadable():
        features = fine_tuning.cache_features(
            backbone,
            split.examples,
            folder,
            decode=split.decode,
            keys=split.fingerprints,
            progress=functools.partial(
                tqdm.tqdm, desc=f"features, {name}", unit="piece", disable=None
            ),
        )
    return dataclasses.replace(split, examples=features, decode=None)


def _place(text):
    """None, a share, or a name."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _switches(names):
    return ", ".join(f"augment.{name}={'' if name == 'flip' else 0}" for name in sorted(names))


def _check_backbone(backbone, files, *, write):
    """Of a cached run checkpoints hold the head alone, which fits no other backbone."""
    found = digests.backbone_digest(backbone)
    if files.is_begun and os.path.exists(files.backbone):
        if workdirs.read_json(files.backbone)["digest"] != found:
            raise commands.ConfigError(
                f"The run in {files.path} began with another backbone: its model.weights have "
                "changed, or this version of Keras draws others. Put them back, or give another "
                "--workdir."
            )
    if write:
        workdirs.write_json(files.backbone, {"digest": found})
