"""Published data sets as they lie on disk: what each reader finds, and what is done with it.

A reader tells which images a protocol's parts hold and what is odd; `to_dataset` makes of it what
trains, `check` what tells a person whether the download is complete.
"""

import dataclasses
import os

import numpy as np

from circle_tf.utils import command_lines
from trainers.datasets import base, folder, parts
from trainers.datasets.collection import Collection, looks

__all__ = [
    "Layout",
    "Part",
    "check",
    "collection_of",
    "find_root",
    "read_lines",
    "to_dataset",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """The images of one part of a protocol, as `train` or `gallery`.

    Args:
        files: list of paths within the root.
        classes: name of the class of each.
        cameras: number of the camera of each, or None where there are none.
    """

    files: list
    classes: list
    cameras: list | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """What a reader found.

    Args:
        name: the data set's.
        root: folder in which the files are.
        parts: dict of name to Part: `train`, and `test`, or `query` and `gallery`.
        expected: dict of part to (images, classes) as the protocol counts them.
        problems: what is odd, in lines.
        distractors: class of images that nobody looks for, or None.
    """

    name: str
    root: str
    parts: dict
    expected: dict
    problems: list = dataclasses.field(default_factory=list)
    distractors: str | None = None


def find_root(path, names, *, holds, name):
    """The folder of a data set: the one given, or the one of a usual name within it.

    Args:
        path: as the user gave it.
        names: names of the folder as it is unpacked.
        holds: what must be in it, a path within.
        name: the data set's.

    Returns:
        str.

    Raises:
        base.DataError: neither holds it.
    """
    for folder_name in ("", *names):
        root = os.path.join(path, folder_name) if folder_name else path
        if os.path.exists(os.path.join(root, holds)):
            return root
    seen = "no such folder" if not os.path.isdir(path) else f"found {_seen(path)}"
    raise base.DataError(
        f"{name}: expected {holds} in {path!r} or in its folder {' or '.join(names) or 'itself'}; "
        f"{seen}. Give the folder into which the data set was unpacked."
    )


def read_lines(root, file, *, name):
    """The lines of a list.

    Args:
        root: folder.
        file: path within.
        name: the data set's.

    Returns:
        list of str, without the empty ones.

    Raises:
        base.DataError: there is no such file.
    """
    path = os.path.join(root, file)
    if not os.path.isfile(path):
        raise base.DataError(
            f"{name}: expected the list {file} in {root!r}, found none: the download is not "
            "complete, or lies in another folder."
        )
    with open(path, encoding="utf-8", errors="replace") as stream:
        return [line.strip() for line in stream if line.strip()]


def to_dataset(layout, config):
    """What trains: the train part, and the others to test on.

    Args:
        layout: Layout.
        config: as of `parts.to_dataset`.

    Returns:
        base.Dataset, as of `parts.to_dataset`.

    Raises:
        base.DataError: a part is empty, or none of its images can be read.
    """
    found = {name: collection_of(layout, name) for name in layout.parts}
    notes = [*layout.problems, *_unmatched(layout)]
    return parts.to_dataset(layout.name, found, config, notes=notes, distractors=layout.distractors)


def check(layout):
    """Tells whether a data set is complete and laid out right, and what is wrong.

    Args:
        layout: Layout.

    Returns:
        list of lines.
    """
    lines, problems = [f"{layout.name} in {layout.root}:"], list(layout.problems)
    for name, part in layout.parts.items():
        found, classes = len(part.files), len(set(part.classes))
        cameras = "" if part.cameras is None else f", {len(set(part.cameras))} cameras"
        lines.append(f"  {name:<8} {found:>7,} images, {classes:>6,} classes{cameras}")
        images, ids = layout.expected[name]
        for kind, seen, wanted in (("images", found, images), ("classes", classes, ids)):
            if seen != wanted:
                problems.append(f"{name}: {seen:,} {kind}; the protocol has {wanted:,}.")
        problems += _faults(layout, name)
    problems += _unmatched(layout)
    return [*lines, *base.findings(problems, none="All is there, as the protocol counts it.")]


def collection_of(layout, name):
    """The files of one part.

    Args:
        layout: Layout.
        name: of the part.

    Returns:
        collection.Collection.

    Raises:
        base.DataError: the part is empty.
    """
    part = layout.parts[name]
    if not part.files:
        options = f"--dataset={layout.name}", f"--path={layout.root}"
        raise base.DataError(
            f"{layout.name}: the part {name} is empty. "
            f"Look: {command_lines.python_module('trainers.data', 'check', *options)}"
        )
    files = np.array([os.path.join(layout.root, file) for file in part.files], object)
    names, labels = np.unique(part.classes, return_inverse=True)
    fingerprints, identities = folder.marks(files, root=layout.root)
    return Collection(
        root=layout.root,
        examples=files,
        labels=labels,
        class_names=tuple(names.tolist()),
        names=np.array(part.files, object),
        fingerprints=fingerprints,
        identities=identities,
        content=lambda content: content,
        cameras=None if part.cameras is None else np.array(part.cameras, np.int64),
    )


def _unmatched(layout):
    """As of `parts.unmatched`."""
    if not {"query", "gallery"} <= set(layout.parts):
        return []
    return parts.unmatched(*(_seen_by(layout.parts[name]) for name in ("query", "gallery")))


def _seen_by(part):
    """(class, camera) of each image."""
    return list(zip(part.classes, part.cameras or [None] * len(part.classes), strict=True))


def _faults(layout, name):
    """Files that are not there or cannot be decoded, in lines."""
    part = layout.parts[name]
    absent = [f for f in part.files if not os.path.isfile(os.path.join(layout.root, f))]
    lines = []
    if absent:
        lines.append(
            f"{name}: {len(absent):,} files are not there: {base.sentence_list(absent, limit=3)}."
        )
    there = sorted(set(part.files) - set(absent))
    if there:
        held = Part(there, ["" for _ in there])
        found = collection_of(dataclasses.replace(layout, parts={name: held}), name)
        seen = looks(found)
        bad = [(f, look) for f, look in zip(there, seen, strict=True) if isinstance(look, str)]
        lines += [f"{name}: unreadable: {file}: {look}" for file, look in bad[:10]]
        lines += [f"{name}: {len(bad) - 10} more unreadable."] if len(bad) > 10 else []
    return lines


def _seen(path):
    names = sorted(os.listdir(path))
    return base.sentence_list(names, limit=6) if names else "nothing in it"
