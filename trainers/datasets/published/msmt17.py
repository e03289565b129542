"""MSMT17: 126,441 images of 4,101 people by fifteen cameras (Wei et al., CVPR 2018)."""

import os

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "msmt17"
_EXPECTED = {"train": (32_621, 1_041), "query": (11_659, 3_060), "gallery": (82_161, 3_060)}
_VERSIONS = {"MSMT17_V1": ("train", "test"), "MSMT17_V2": ("mask_train_v2", "mask_test_v2")}
_LISTS = {
    "train": ("list_train.txt", "list_val.txt"),
    "query": ("list_query.txt",),
    "gallery": ("list_gallery.txt",),
}


def load(config) -> base.Dataset:
    """MSMT17 to train on, with queries, gallery and cameras; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there, or a list is not.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by the lists that come with them; training has the validation part too.

    Args:
        path: the folder it was unpacked into.

    Returns:
        layouts.Layout with `train`, `query` and `gallery`. Identities of training and testing are
        numbered apart.

    Raises:
        DataError: it is not there, or a list is not.
    """
    root = layouts.find_root(path, list(_VERSIONS), holds="list_train.txt", name=_NAME)
    folders = next(
        (pair for pair in _VERSIONS.values() if os.path.isdir(os.path.join(root, pair[0]))), None
    )
    if folders is None:
        raise base.DataError(
            f"{_NAME}: expected the folder train (V1) or mask_train_v2 (V2) beside the lists in "
            f"{root!r}, found neither."
        )
    problems, parts = [], {}
    for part, lists in _LISTS.items():
        lines = [line for name in lists for line in layouts.read_lines(root, name, name=_NAME)]
        found = _parse(lines, folders[0 if part == "train" else 1], part, problems)
        parts[part] = (
            layouts.Part(*map(list, zip(*found, strict=True)))
            if found
            else layouts.Part([], [], [])
        )
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems)


def _parse(lines, folder, part, problems):
    """(file, identity, camera) of each line, as `0000/0000_045_12_0303morning_0006_2.jpg 0`."""
    found, odd = [], []
    for line in lines:
        file, _, identity = line.rpartition(" ")
        fields = os.path.basename(file).split("_")
        if not identity.isdecimal() or len(fields) < 3 or not fields[2].isdecimal():
            odd.append(line)
            continue
        found.append((os.path.join(folder, file), f"{int(identity):04d}", int(fields[2])))
    if odd:
        problems.append(
            f"{part}: {len(odd)} lines are not like 0000/0000_045_12_0303morning_0006_2.jpg 0: "
            f"{base.sentence_list(odd, limit=3)}."
        )
    return found
