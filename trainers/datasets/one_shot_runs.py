"""The runs of one-shot classification that Lake et al. published with Omniglot."""

import os
from typing import NamedTuple

from trainers.datasets import base

__all__ = ["Run", "read"]

_LABELS = "class_labels.txt"


class Run(NamedTuple):
    """One run: each item is of one of the classes, which have one drawing each.

    Args:
        name: of its folder.
        classes: paths of the drawings that stand for the classes.
        items: paths of the drawings to be classified.
        truth: of each item the number of its class.
    """

    name: str
    classes: list
    items: list
    truth: list


def read(path: str) -> list[Run]:
    """Lists the runs of a folder: run01/training/class01.png, run01/test/item01.png, ...

    Args:
        path: the folder of the runs, or the one with all_runs in it.

    Returns:
        The runs, by name.

    Raises:
        DataError: no runs, or one that is not whole.
    """
    within = os.path.join(path, "all_runs")
    root = within if os.path.isdir(within) else path
    names = sorted(os.listdir(root)) if os.path.isdir(root) else []
    names = [name for name in names if os.path.isfile(os.path.join(root, name, _LABELS))]
    if not names:
        raise base.DataError(
            f"Expected a folder of runs (run01/{_LABELS}, run01/training, run01/test, ...), found "
            f"none at {root!r}. Give Omniglot's one-shot runs as --one_shot_runs=FOLDER."
        )
    return [_read(root, name) for name in names]


def _read(root, name):
    path = os.path.join(root, name, _LABELS)
    with open(path, encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    pairs, classes = [], {}
    for number, words in enumerate(lines, 1):
        if not words:
            continue
        if len(words) != 2:
            raise base.DataError(
                f"{path}, line {number}: expected an item and its class "
                f"({name}/test/item01.png {name}/training/class01.png), found {' '.join(words)!r}."
            )
        pairs.append(words)
        classes.setdefault(words[1], len(classes))
    drawings = [*classes, *(item for item, _ in pairs)]
    if absent := [file for file in drawings if not os.path.isfile(os.path.join(root, file))]:
        raise base.DataError(
            f"{path}: {len(absent)} drawings are not there: "
            f"{base.sentence_list(absent, limit=3)}. Unpack the runs again."
        )
    if len(classes) < 2:
        raise base.DataError(f"{path}: expected two classes or more, found {len(classes)}.")
    items = [os.path.join(root, item) for item, _ in pairs]
    truth = [classes[of_class] for _, of_class in pairs]
    return Run(name, [os.path.join(root, file) for file in classes], items, truth)
