"""People's own images: one sub-folder for each class."""

import os

import numpy as np

from circle_tf.utils import image_files
from trainers.datasets import base, places
from trainers.datasets.collection import Collection, to_dataset

__all__ = ["collect", "load", "marks", "of_classes"]


def load(config) -> base.Dataset:
    """Lists the images, checks that they can be read, and holds classes out for testing.

    Args:
        config: `path` (the folder), `test_path` (a folder of other classes to test on; empty:
            hold some out), and the fields of `collection.to_dataset`.

    Returns:
        The data set; images are decoded when they are needed.

    Raises:
        DataError: no such folder, no images, one class only, or no image can be read.
    """
    tests = config.get("test_path", "")
    return to_dataset(
        "folder", collect(config.get("path", "")), collect(tests) if tests else None, config
    )


def collect(path: str) -> Collection:
    """Lists the images of a folder, without reading them.

    A class is a sub-folder, its images are the files in it and in the folders below it with the
    suffix of an image, in upper or lower case. Hidden files and folders are left alone. A class
    whose images all lie in several folders below it is taken as one, and noted.

    Args:
        path: the folder that holds a sub-folder for each class.

    Returns:
        The images, ordered by class and path.

    Raises:
        DataError: no such folder, no image in any sub-folder, or a class whose name is not UTF-8.
    """
    if not os.path.isdir(path):
        raise base.DataError(
            f"Expected a folder with one sub-folder of images for each class, found "
            f"{'no folder' if not os.path.exists(path) else 'a file'} at {path!r}. "
            "Give it as --config.dataset.path=FOLDER."
        )
    found, others, empty, nested = {}, _files_beside(path), [], {}
    for name in _class_names(path):
        files = image_files.files_below(os.path.join(path, name))
        found[name] = [file for file in files if image_files.is_image(file)]
        others += [file for file in files if not image_files.is_image(file)]
        if not found[name]:
            empty.append(name)
            del found[name]
        elif folders := _folders_within(os.path.join(path, name), found[name]):
            nested[name] = folders
    if not found:
        raise base.DataError(
            f"{path}: expected a sub-folder for each class with images in it "
            f"({', '.join(image_files.SUFFIXES)}), found {len(empty)} sub-folders without images"
            + (f" and other files: {image_files.counted(others)}." if others else ".")
        )
    notes = []
    if empty:
        notes.append(
            f"{path}: {len(empty)} sub-folders hold no images: {base.sentence_list(empty)}."
        )
    if nested:
        notes.append(_nesting(path, nested))
    if others:
        notes.append(
            f"{path}: left out files that are no images of a class: {image_files.counted(others)}."
        )
    return of_classes(path, found, notes)


def _folders_within(path, files):
    """Names of the folders right in a class in which all of its images lie, if they are several."""
    places = {os.path.relpath(file, path).partition(os.sep)[::2] for file in files}
    folders = sorted({first for first, rest in places})
    return folders if len(folders) > 1 and all(rest for _, rest in places) else []


def _nesting(path, nested):
    """What to say of classes that look like folders of classes."""
    name, folders = next(iter(nested.items()))
    return (
        f"{path}: expected its sub-folders to be the classes, found folders of folders in "
        f"{len(nested)} of them: {base.sentence_list(list(nested))}. All images of {name} count as "
        f"one class, though they lie in its {base.sentence_list(folders, limit=3)}. If those are "
        f"the classes, move them up into {path}, or give {os.path.join(path, name)} as the path."
    )


def of_classes(path, found, notes=()) -> Collection:
    """Images that were listed by class.

    Args:
        path: the folder they are in.
        found: dict of class name to the list of its files.
        notes: as of `Collection`.

    Returns:
        The images, in that order.
    """
    files = np.array([file for name in found for file in found[name]], object)
    labels = np.repeat(np.arange(len(found)), [len(found[name]) for name in found])
    fingerprints, identities = marks(files, root=path)
    return Collection(
        root=path,
        examples=files,
        labels=labels,
        class_names=tuple(found),
        names=files,
        fingerprints=fingerprints,
        identities=identities,
        content=lambda content: content,
        notes=tuple(notes),
    )


def marks(files, *, root):
    """Texts by which files are known again.

    Args:
        files: paths `[N]` that begin with `root`.
        root: the folder they are in.

    Returns:
        `(fingerprints, identities)`, each `[N]`: path, size and time, which change when a file of
        this machine does; and path within `root` and size, which copies have in common.
    """
    fingerprints, identities = [], []
    for file, status in zip(files, places.statuses(files), strict=True):
        within = file.removeprefix(root).lstrip(os.sep)
        if status is None:  # A dangling link; told as unreadable when it is read.
            fingerprints.append(file)
            identities.append(within)
            continue
        place = file if places.is_remote(file) else os.path.abspath(file)
        fingerprints.append(f"{place}|{status.size}|{status.changed}")
        identities.append(f"{within}|{status.size}")
    return np.array(fingerprints, object), np.array(identities, object)


def _class_names(path):
    with os.scandir(path) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    names = sorted(name for name in names if not image_files.is_hidden(name))
    if odd := [image_files.printable(name) for name in names if not image_files.is_utf8(name)]:
        raise base.DataError(
            f"{path}: names of classes must be UTF-8, found {len(odd)} sub-folders that are named "
            f"otherwise: {base.sentence_list(odd)}. Rename them."
        )
    return names


def _files_beside(path):
    """The files that lie beside the classes."""
    with os.scandir(path) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    return [name for name in files if not image_files.is_hidden(name)]
