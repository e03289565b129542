"""Labeled Faces in the Wild: 13,233 images of 5,749 people, 6,000 pairs in ten folds."""

import os

import numpy as np

from circle_tf.utils import image_files
from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "read_pairs"]

_NAME = "lfw"
_EXPECTED = {"images": (13_233, 5_749)}
_PAIRS, _FOLDS = 6_000, 10


def read(path: str) -> layouts.Layout:
    """Lists the images by their folders, and looks whether the pairs are there.

    Args:
        path: the folder it was unpacked into, with `lfw` and `pairs.txt`.

    Returns:
        layouts.Layout with `images`.

    Raises:
        base.DataError: it is not there.
    """
    root = layouts.find_root(path, [], holds="lfw", name=_NAME)
    part, problems = layouts.Part([], []), []
    for file in sorted(_files(root).values()):
        part.files.append(file)
        part.classes.append(os.path.basename(os.path.dirname(file)))
    try:
        first, second, _ = read_pairs(root)
        if len(first) != _PAIRS:
            problems.append(f"pairs.txt: {len(first):,} pairs; the protocol has {_PAIRS:,}.")
        absent = sorted({*first, *second} - set(part.files))
        if absent:
            problems.append(
                f"pairs.txt names {len(absent)} images that are not there: "
                f"{base.sentence_list(absent, limit=3)}."
            )
    except base.DataError as error:
        problems.append(str(error))
    return layouts.Layout(_NAME, root, {"images": part}, _EXPECTED, problems)


def read_pairs(root: str) -> tuple[list[str], list[str], np.ndarray]:
    """The pairs of the protocol, in the order of their ten folds.

    Args:
        root: folder with `pairs.txt`, and with the images in `lfw`, in any format.

    Returns:
        `(first, second, same)`: files within the root, and `[P]` bool.

    Raises:
        base.DataError: there is no such file, or a line of it is no pair.
    """
    lines = layouts.read_lines(root, "pairs.txt", name=_NAME)[1:]
    there, pairs = _files(root), []
    for number, line in enumerate(lines, 2):
        fields = line.split()
        if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
            fields = [fields[0], fields[1], fields[0], fields[2]]
        if len(fields) != 4 or not (fields[1].isdecimal() and fields[3].isdecimal()):
            raise base.DataError(
                f"{_NAME}: line {number} of pairs.txt is neither `name i j` nor `name i name j`: "
                f"{line!r}."
            )
        stems = [_stem(*fields[:2]), _stem(*fields[2:])]
        # What is not there has the name of the original.
        files = [there.get(stem, f"{stem}.jpg") for stem in stems]
        pairs.append([*files, fields[0] == fields[2]])
    first, second, same = zip(*pairs, strict=True) if pairs else ([], [], [])
    return list(first), list(second), np.array(same, bool)


def _files(root):
    """The images within the root, by their paths without suffix: aligned ones may be PNG."""
    found = image_files.images_below(os.path.join(root, "lfw"))
    paths = [os.path.relpath(path, root) for path in found]
    return {os.path.splitext(path)[0]: path for path in paths}


def _stem(name, number):
    return os.path.join("lfw", name, f"{name}_{int(number):04d}")
