"""People's own images in TFRecord files, as `python -m trainers.data convert` writes them."""

import collections
import os
import re
import zlib

import numpy as np
import tensorflow as tf
import tqdm

from circle_tf.data.records import RecordFiles
from trainers.datasets import base
from trainers.datasets.collection import Collection, to_dataset

__all__ = ["collect", "list_shards", "load", "of_shards"]


def load(config) -> base.Dataset:
    """Opens the shards, checks that their images can be read, and holds classes out for testing.

    Args:
        config: `path` (a TFRecord file, or a folder of them), `test_path` (other shards to test
            on; empty: hold classes out), `image_feature`, `label_feature`, `class_feature` (names
            of the features: bytes of the image file, whole number, and name of the class, which
            may be missing; default image, label, class), and the fields of
            `collection.to_dataset`.

    Returns:
        The data set; images are read and decoded when they are needed.

    Raises:
        DataError: no shards, damaged ones, one class only, or no image can be read.
    """
    names = {
        f"{kind}_feature": config.get(f"{kind}_feature", kind)
        for kind in ("image", "label", "class")
    }
    tests = config.get("test_path", "")
    return to_dataset(
        "tfrecord",
        collect(config.get("path", ""), **names),
        collect(tests, **names) if tests else None,
        config,
    )


def collect(
    path: str, *, image_feature="image", label_feature="label", class_feature="class"
) -> Collection:
    """Opens shards, without decoding their images.

    Args:
        path: a TFRecord file, or a folder that holds some.
        image_feature: name of the feature with the bytes of an image file.
        label_feature: name of the feature with the label, a whole number.
        class_feature: name of the feature with the name of the class, or of none.

    Returns:
        The images, in the order of the shards.

    Raises:
        DataError: no shards, or damaged ones.
    """
    return of_shards(
        path,
        list_shards(path),
        image_feature=image_feature,
        label_feature=label_feature,
        class_feature=class_feature,
    )


def of_shards(root, shards, *, image_feature, label_feature, class_feature) -> Collection:
    """As of `collect`, of certain files.

    Args:
        root: what to call them together.
        shards: their paths.
        image_feature: as of `collect`.
        label_feature: as of `collect`.
        class_feature: as of `collect`; without one a class is named by its label.

    Returns:
        The images, in the order of the shards.

    Raises:
        DataError: no records, or damaged ones.
    """
    try:
        records = RecordFiles(
            shards,
            label_feature=label_feature,
            progress=lambda paths: tqdm.tqdm(paths, desc="opening shards", disable=None),
        )
        classes, first, labels = np.unique(records.labels, return_index=True, return_inverse=True)
        examples = records.fetch(first)
    except ValueError as error:
        raise base.DataError(str(error)) from error
    names = [
        _class_name(example, label=label, feature=class_feature)
        for example, label in zip(examples, classes, strict=True)
    ]
    where = np.array([records.where(row) for row in range(len(records))], object)
    return Collection(
        root=root,
        examples=records,
        labels=labels.astype(np.int64),
        class_names=tuple(names),
        names=where,
        fingerprints=_fingerprints(shards, where, feature=image_feature),
        identities=_identities(records, first, examples, feature=image_feature),
        content=lambda example: _image(example, feature=image_feature),
    )


def list_shards(path: str) -> list[str]:
    """TFRecord files at a path, by name.

    Args:
        path: a file, or a folder.

    Returns:
        The file; or the files of the folder that have `tfrecord` in their name.

    Raises:
        DataError: there is nothing, or shards of a numbered set are missing.
    """
    if os.path.isfile(path):
        return [path]
    names = sorted(os.listdir(path)) if os.path.isdir(path) else []
    shards = [name for name in names if "tfrecord" in name and not name.endswith(".npz")]
    shards = [name for name in shards if not name.startswith(".")]
    if not shards:
        raise base.DataError(
            f"Expected a TFRecord file or a folder of *.tfrecord files, found none at {path!r}. "
            "Give it as --config.dataset.path=PATH; python -m trainers.data convert writes them."
        )
    _check_complete(path, shards)
    return [os.path.join(path, name) for name in shards]


# a-00001-of-00004.tfrecord, a.tfrecord-00001-of-00004, a_1_of_4.tfrecord, a.tfrecord.1.of.4
_NUMBERED = re.compile(r"(?P<before>.*?)\d+(?P<of>[-_.]of[-_.]\d+)(?P<after>\D.*)?", re.IGNORECASE)


def _check_complete(path, shards):
    """Finds out from the names of numbered shards that some are missing."""
    sets = collections.defaultdict(set)
    for name in shards:
        if found := _NUMBERED.fullmatch(name):
            sets[found["before"], found["of"], found["after"] or ""].add(name)
    for (before, of, after), names in sets.items():
        total = int(re.split("[-_.]", of)[-1])
        if len(names) != total:
            raise base.DataError(
                f"{path}: expected {total} shards {before}*{of}{after}, found {len(names)}. "
                "Copy the others too, or convert again."
            )


def _class_name(example, *, label, feature):
    features = tf.train.Example.FromString(example).features.feature
    values = features[feature].bytes_list.value if feature in features else []
    return values[0].decode("utf-8", "replace") if values else str(label)


def _fingerprints(shards, where, *, feature):
    status = {shard: os.stat(shard) for shard in shards}
    marks = {
        shard: f"{os.path.abspath(shard)}|{found.st_size}|{found.st_mtime_ns}|{feature}|"
        for shard, found in status.items()
    }
    return np.array([marks[text.rpartition(", record")[0]] + text for text in where], object)


def _identities(records, first, examples, *, feature):
    """Lengths of the records, and the image of each class's first, which was read anyway."""
    identities = records.lengths.astype(str).astype(object)
    for row, example in zip(first, examples, strict=True):
        features = tf.train.Example.FromString(example).features.feature
        images = features[feature].bytes_list.value if feature in features else []
        identities[row] += f"|{zlib.crc32(b''.join(images)):08x}"
    return identities


def _image(example, *, feature):
    return tf.io.parse_single_example(example, {feature: tf.io.FixedLenFeature([], tf.string)})[
        feature
    ]
