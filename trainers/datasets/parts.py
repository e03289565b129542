"""Data that comes divided: to train on, to test on, or to look up and to be looked up in."""

import collections
import dataclasses

import numpy as np

from trainers.datasets import base, images
from trainers.datasets.collection import drop_unreadable

__all__ = ["to_dataset", "unmatched"]


def to_dataset(name, parts, config, *, notes=(), distractors=None):
    """What trains: the train part, and the others to test on.

    Args:
        name: the data set's.
        parts: dict of `train`, and `test`, or `query` and `gallery`, or all of them, to
            collection.Collection.
        config: the fields of `images.image_shape`, and `verify` (default True: decode every image
            once before training starts).
        notes: what is odd, in lines.
        distractors: class of images that nobody looks for, or None.

    Returns:
        base.Dataset; queries and gallery where there are such, with cameras where they are known.
        Without a part `test` the gallery is for leave-one-out.

    Raises:
        base.DataError: none of a part's images can be read.
    """
    shape, notes = images.image_shape(config), list(notes)
    if config.get("verify", True):
        parts = {part: drop_unreadable(found) for part, found in parts.items()}
    notes += [note for found in parts.values() for note in found.notes]
    queries, gallery = _looked_up(parts, shape) if "query" in parts else (None, None)
    test = parts["test"] if "test" in parts else _without(distractors, parts["gallery"])
    described = [
        f"{len(found.labels)} images of {len(found.class_names)} {part}"
        for part, found in parts.items()
    ]
    return base.Dataset(
        name=name,
        train=parts["train"].split(shape),
        test=test.split(shape),
        queries=queries,
        gallery=gallery,
        image_shape=shape,
        report="\n".join([f"{name}: {'; '.join(described)}.", *notes]),
    )


def unmatched(queries, gallery):
    """What cannot be evaluated, in a line: queries that nothing in the gallery matches.

    Args:
        queries: (class, camera) of each; the camera None where it is not known.
        gallery: likewise.

    Returns:
        list of one line, or none.

    Example:
        >>> unmatched([("a", 1), ("b", 1)], [("a", 1), ("b", 2)])
        ['query: 1 images have none of their class by another camera in the gallery.']
    """
    cameras = collections.defaultdict(set)  # Of each class of the gallery.
    for name, camera in gallery:
        cameras[name].add(camera)
    by_camera = any(camera is not None for _, camera in queries)
    other = " by another camera" if by_camera else ""
    lost = sum(not cameras[name] - ({camera} if by_camera else set()) for name, camera in queries)
    if lost and lost == len(queries):
        return [
            f"query: no image has one of its class{other} in the gallery: nothing can be looked "
            "up, only leave-one-out numbers can be measured."
        ]
    return [f"query: {lost:,} images have none of their class{other} in the gallery."] * bool(lost)


def _without(distractors, gallery):
    """The gallery for leave-one-out."""
    is_known = np.array([name != distractors for name in gallery.class_names])
    return gallery.take(np.flatnonzero(is_known[gallery.labels]))


def _looked_up(parts, shape):
    """Queries and gallery, whose labels count the same classes."""
    pair = [parts["query"], parts["gallery"]]
    names = np.unique(np.concatenate([part.class_names for part in pair]))
    splits = []
    for part in pair:
        labels = np.searchsorted(names, np.array(part.class_names)[part.labels])
        part = dataclasses.replace(part, labels=labels, class_names=tuple(names.tolist()))
        splits.append(part.split(shape))
    return splits
