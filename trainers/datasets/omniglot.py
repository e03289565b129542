"""Omniglot: 1,623 handwritten characters of 50 alphabets, each in 20 hands (Lake et al. 2015)."""

import os

import numpy as np

from circle_tf.utils import image_files
from trainers.datasets import base, folder
from trainers.datasets.collection import Collection, name_hash, to_dataset

__all__ = ["collect", "load"]

_BACKGROUND = "images_background"


def load(config) -> base.Dataset:
    """Lists the drawings, and holds alphabets out for testing.

    Args:
        config: `path` (a folder of alphabets, or the one with images_background in it),
            `test_path` (a folder of other alphabets to test on; empty: hold some out),
            `test_fraction` (share of the alphabets to hold out, default 0.2, one at least),
            and the fields of `collection.to_dataset`.

    Returns:
        The data set; a class is named alphabet/character.

    Raises:
        DataError: no such folder, no characters of alphabets, or one alphabet only.
    """
    train, tests = collect(config.get("path", "")), config.get("test_path", "")
    train, test = (train, collect(tests)) if tests else _divided(train, config)
    return to_dataset("omniglot", train, test, config)


def collect(path: str) -> Collection:
    """Lists the drawings of a folder `alphabet/character/*.png`, without reading them.

    Args:
        path: the folder of alphabets, or the one with images_background in it.

    Returns:
        The drawings, ordered by alphabet, character and path.

    Raises:
        DataError: no such folder, or no characters of alphabets in it.
    """
    within = os.path.join(path, _BACKGROUND)
    root = within if os.path.isdir(within) else path
    found = {
        f"{alphabet}/{character}": files
        for alphabet in _folders(root)
        for character in _folders(os.path.join(root, alphabet))
        if (files := image_files.images_below(os.path.join(root, alphabet, character)))
    }
    if not found:
        raise base.DataError(
            f"Expected a folder of alphabets, each with folders of characters "
            f"(Greek/character01/0394_01.png), found {_seen(root)} at {root!r}. Give Omniglot's "
            f"{_BACKGROUND}, or one of five alphabets, as --config.dataset.path=FOLDER."
        )
    return folder.of_classes(root, found)


def _divided(found, config):
    """The drawings to train on and to test on: whole alphabets."""
    alphabets = np.array([name.partition("/")[0] for name in found.class_names])
    known = sorted(set(alphabets))
    if names := config.get("test_classes", ()):  # As they were divided when the run began.
        held_out = {name.partition("/")[0] for name in names}
    else:
        fraction = config.get("test_fraction", 0.2)
        held_out = sorted(known, key=name_hash)[: max(1, round(fraction * len(known)))]
    in_test = np.isin(alphabets, list(held_out))
    if in_test.all() or not in_test.any():
        raise base.DataError(
            f"{found.root}: expected alphabets to train on and others to hold out for testing, "
            f"found {base.sentence_list(known)}. Give others as --config.dataset.test_path=FOLDER."
        )
    return [found.take(np.flatnonzero(part[found.labels])) for part in (~in_test, in_test)]


def _folders(path):
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if not image_files.is_hidden(name))


def _seen(path):
    if not os.path.isdir(path):
        return "no folder"
    names = _folders(path)
    return f"the folders {base.sentence_list(names, limit=3)}" if names else "no folders"
