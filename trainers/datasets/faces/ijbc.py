"""IJB-C: templates of several images, to be verified against each other."""

import os

import numpy as np

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["Protocol", "read"]

_NAME = "ijbc"
_TEMPLATES, _PAIRS = "ijbc_face_tid_mid.txt", "ijbc_template_pair_label.txt"
_POINTS = "ijbc_name_5pts_score.txt"


class Protocol:
    """Which image is in which template, and which templates are compared.

    Args:
        folder: where the images are.
        files: list of `[N]` names of images.
        templates: `[N]` int64.
        media: `[N]` int64.
        points: `[N, 5, 2]` float, five points of each face, in pixels.
        first: `[P]` int64 templates.
        second: `[P]` int64 templates.
        same: `[P]` bool.
    """

    def __init__(self, folder, files, templates, media, points, first, second, same):
        self.folder = folder
        self.files, self.templates, self.media, self.points = files, templates, media, points
        self.first, self.second, self.same = first, second, same


def read(path: str) -> Protocol:
    """Reads the three lists in `meta`.

    Args:
        path: the folder it was unpacked into.

    Returns:
        Protocol.

    Raises:
        base.DataError: a list is not there, a line of one is wrong, or they do not fit together.
    """
    root = layouts.find_root(path, ["IJBC", "ijb-c"], holds="meta", name=_NAME)
    rows = _numbers(root, _TEMPLATES, names=1, columns=2)
    points = _numbers(root, _POINTS, names=1, columns=11)
    files = [name for name, _ in rows]
    if files != [name for name, _ in points]:
        raise base.DataError(
            f"{_NAME}: {_TEMPLATES} and {_POINTS} must list the same images in the same order; "
            f"found {len(rows)} and {len(points)} lines."
        )
    ids = np.array([values for _, values in rows], np.int64).reshape(-1, 2)
    table = _pairs(root)
    lonely = np.setdiff1d(table[:, :2], ids[:, 0])
    if lonely.size:
        raise base.DataError(
            f"{_NAME}: {_PAIRS} compares {lonely.size} templates that {_TEMPLATES} does not have: "
            f"{base.sentence_list(lonely.tolist(), limit=3)}."
        )
    places = np.array([values[:10] for _, values in points]).reshape(-1, 5, 2)
    folder, same = os.path.join(root, "loose_crop"), table[:, 2] == 1
    return Protocol(folder, files, ids[:, 0], ids[:, 1], places, table[:, 0], table[:, 1], same)


def _pairs(root):
    """`[P, 3]`: two templates, and 1 if they are of one person. There are 15 million of them."""
    path = os.path.join(root, "meta", _PAIRS)
    if not os.path.isfile(path):
        layouts.read_lines(root, os.path.join("meta", _PAIRS), name=_NAME)  # Says so.
    try:
        table = np.loadtxt(path, np.int64, ndmin=2)
    except ValueError as error:
        raise base.DataError(
            f"{_NAME}: {_PAIRS} must have three whole numbers in each line: {error}."
        ) from error
    if table.shape[1] != 3:
        raise base.DataError(
            f"{_NAME}: {_PAIRS} must have three whole numbers in each line; found {table.shape[1]}."
        )
    return table


def _numbers(root, file, *, names, columns):
    """(name, numbers) of each line."""
    found = []
    lines = layouts.read_lines(root, os.path.join("meta", file), name=_NAME)
    for number, line in enumerate(lines, 1):
        fields = line.split()
        try:
            values = [float(field) for field in fields[names:]]
        except ValueError:
            values = []
        if len(values) != columns:
            raise base.DataError(
                f"{_NAME}: line {number} of {file} has not {names} name and {columns} numbers: "
                f"{line[:80]!r}."
            )
        found.append((fields[0], values))
    return found
