"""CUB-200-2011: 11,788 images of 200 birds (Wah et al., 2011); the first 100 classes train."""

import os

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "cub200"
_EXPECTED = {"train": (5_864, 100), "test": (5_924, 100)}
_LAST_TRAINED = 100


def load(config) -> base.Dataset:
    """CUB-200-2011 to train on and for leave-one-out retrieval; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there, or a list is not.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by `images.txt` and `image_class_labels.txt`.

    `train_test_split.txt` is the split of classification and of no use here: retrieval trains on
    classes 1 to 100 and tests on the others.

    Args:
        path: the folder it was unpacked into.

    Returns:
        layouts.Layout with `train` and `test`.

    Raises:
        DataError: it is not there, or a list is not.
    """
    root = layouts.find_root(path, ["CUB_200_2011"], holds="images.txt", name=_NAME)
    files = _table(layouts.read_lines(root, "images.txt", name=_NAME))
    labels = _table(layouts.read_lines(root, "image_class_labels.txt", name=_NAME))
    problems, parts = [], {"train": layouts.Part([], []), "test": layouts.Part([], [])}
    lonely = sorted(set(files) ^ set(labels))
    if lonely:
        problems.append(
            f"{len(lonely)} numbers are in one of images.txt and image_class_labels.txt only: "
            f"{base.sentence_list(lonely, limit=3)}."
        )
    for number in files:
        if not labels.get(number, "").isdecimal():
            continue
        part = parts["train" if int(labels[number]) <= _LAST_TRAINED else "test"]
        part.files.append(os.path.join("images", files[number]))
        part.classes.append(files[number].partition("/")[0])
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems)


def _table(lines):
    """Of lines `1 value`, the values by number."""
    return dict(line.split(maxsplit=1) for line in lines if " " in line)
