"""Market-1501: 32,668 images of 1,501 people by six cameras (Zheng et al., ICCV 2015)."""

import os
import re

from circle_tf.utils import image_files
from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "market1501"
_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
# The gallery without junk; its classes are 750 people and the distractors, which are one, 0.
_EXPECTED = {"train": (12_936, 751), "query": (3_368, 750), "gallery": (15_913, 751)}
_PATTERN = re.compile(r"^(-?\d+)_c(\d+)")  # 0002_c1s1_000451_03.jpg
_JUNK = -1


def load(config) -> base.Dataset:
    """Market-1501 to train on, with queries, gallery and cameras; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by the names of their files.

    Identity -1 is junk and left out; 0 is distractors, which stay in the gallery.

    Args:
        path: the folder it was unpacked into.

    Returns:
        layouts.Layout with `train`, `query` and `gallery`.

    Raises:
        DataError: it is not there.
    """
    root = layouts.find_root(
        path, ["Market-1501-v15.09.15"], holds="bounding_box_train", name=_NAME
    )
    problems, parts = [], {}
    for part, name in _FOLDERS.items():
        found = _list(root, name, problems)
        parts[part] = (
            layouts.Part(*map(list, zip(*found, strict=True)))
            if found
            else layouts.Part([], [], [])
        )
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems, distractors="0000")


def _list(root, name, problems):
    """(file, identity, camera) of each image that counts."""
    folder = os.path.join(root, name)
    if not os.path.isdir(folder):
        problems.append(f"The folder {name} is not there.")
        return []
    found, odd = [], []
    for file in sorted(os.listdir(folder)):
        match = _PATTERN.match(file)
        if image_files.is_hidden(file):
            continue
        if match is None or not image_files.is_image(file):
            odd.append(file)
        elif int(match[1]) != _JUNK:
            found.append((os.path.join(name, file), f"{int(match[1]):04d}", int(match[2])))
    if odd:
        problems.append(
            f"{name}: left out {len(odd)} files whose names are not like 0002_c1s1_000451_03.jpg: "
            f"{base.sentence_list(odd, limit=3)}."
        )
    return found
