"""Image sets of TensorFlow Datasets, by name, as `tfds build` prepared them.

Their TFRecord files are read at random where they lie: nothing is copied, shuffled or downloaded.
"""

import contextlib
import dataclasses
import os

import numpy as np

from circle_tf.data import records
from circle_tf.utils import errors
from trainers.datasets import base, tfrecord
from trainers.datasets.collection import Collection, to_dataset

__all__ = ["PREFIX", "collect", "load"]

PREFIX = "tfds:"
_USUAL = ("train", "validation", "test")


def load(config) -> base.Dataset:
    """Opens a set and divides it, by its splits where they have no class in common, else by class.

    Args:
        config: `name` (tfds:NAME, tfds:NAME/CONFIG:VERSION), `path` (tfds' data_dir; empty: its
            usual one), `image_feature` and `label_feature` (default image, label), `train_split`
            and `test_split` (names of splits, several joined by +; empty: see `collect`), and the
            fields of `collection.to_dataset`.

    Returns:
        The data set; images are read and decoded when they are needed.

    Raises:
        DataError: no such set, it is not prepared, or is none of labelled images.
    """
    found = collect(
        config["name"],
        config.get("path", ""),
        image_feature=config.get("image_feature", "image"),
        label_feature=config.get("label_feature", "label"),
        splits=(config.get("train_split", ""), config.get("test_split", "")),
    )
    train = found["all"] if "all" in found else found["train"]
    return to_dataset(config["name"], train, found.get("test"), config)


def collect(
    name: str,
    path: str = "",
    *,
    image_feature: str = "image",
    label_feature: str = "label",
    splits: tuple[str, str] = ("", ""),
) -> dict[str, Collection]:
    """Opens a prepared set, without decoding its images.

    Args:
        name: tfds:NAME, with /CONFIG and :VERSION if need be.
        path: tfds' data_dir; empty: its usual one.
        image_feature: name of the feature that holds the image.
        label_feature: name of the feature that holds the class, a whole number.
        splits: what to train on and to test on, names of splits joined by +. Where neither is
            given, the splits train and test if they have no class in common, else all examples of
            train, validation and test together; where the first alone is, nothing else.

    Returns:
        dict of `train` and `test`; or of `all`, where classes are to be held out.

    Raises:
        DataError: no such set, it is not prepared, or is none of labelled images.
    """
    builder = _builder(name.removeprefix(PREFIX), path)
    class_names = _class_names(builder, image_feature, label_feature)
    known, (train, test) = list(builder.info.splits), splits

    def of(names):
        features = {"image_feature": image_feature, "label_feature": label_feature}
        return _of_splits(builder, names, class_names, **features)

    if train and test:
        return {"train": of(train.split("+")), "test": of(test.split("+"))}
    if train or test:
        if not train:
            raise base.DataError(
                f"{name}: dataset.test_split={test} wants dataset.train_split as well; there are "
                f"{', '.join(known)}."
            )
        return {"all": of(train.split("+"))}
    if {"train", "test"} <= set(known):
        found = {part: of([part]) for part in ("train", "test")}
        if not set(found["train"].class_names) & set(found["test"].class_names):
            return found
    return {"all": of([split for split in _USUAL if split in known] or known)}


def _builder(name, path):
    """The builder of a set that is prepared."""
    tfds = _import()
    try:
        builder = tfds.builder(name, data_dir=path or None)
    except (tfds.core.registered.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise base.DataError(
            f"There is no {PREFIX}{name}: {errors.reason(error)} Look for it at "
            "https://www.tensorflow.org/datasets/catalog, or give the data_dir in which it is as "
            "--config.dataset.path=FOLDER."
        ) from error
    if not os.path.isdir(builder.data_dir) or not builder.info.splits:
        raise base.DataError(
            f"{PREFIX}{name} is not prepared: there is nothing at {str(builder.data_dir)!r}. "
            f"`tfds build {name}` fetches it (from {builder.info.homepage or 'its home page'}) and "
            "prepares it, here or on a machine with a network: copy its folder then, and give the "
            "folder above as --config.dataset.path=FOLDER."
        )
    if (kind := builder.info.file_format.value) != "tfrecord":
        raise base.DataError(
            f"{builder.data_dir}: expected a set prepared as tfrecord, found {kind}. Prepare it "
            f"again: tfds build {name} --file_format=tfrecord"
        )
    return builder


def _import():
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise base.DataError(
            "Sets of TensorFlow Datasets need it: pip install tensorflow-datasets, and "
            "importlib-resources for `tfds build`."
        ) from error
    return tensorflow_datasets


def _class_names(builder, image_feature, label_feature):
    """Names of the classes by number, or None where they have none."""
    tfds, known = _import(), dict(builder.info.features.items())
    told = ", ".join(f"{name} ({type(feature).__name__})" for name, feature in known.items())
    image, label = (known.get(name) for name in (image_feature, label_feature))
    if not isinstance(image, tfds.features.Image) or image.np_dtype not in (np.uint8, np.uint16):
        raise base.DataError(
            f"{builder.name}: expected an Image in the feature {image_feature!r}; there are {told}."
            " Name it: --config.dataset.image_feature=NAME."
        )
    is_number = label is not None and np.issubdtype(label.np_dtype, np.integer)
    if not is_number or label.shape:
        raise base.DataError(
            f"{builder.name}: expected a whole number in the feature {label_feature!r}; there are "
            f"{told}. Name it: --config.dataset.label_feature=NAME."
        )
    return label.names if isinstance(label, tfds.features.ClassLabel) else None


def _of_splits(builder, names, class_names, *, image_feature, label_feature):
    shards = []
    for name in names:
        if name not in builder.info.splits:
            raise base.DataError(
                f"{builder.name}: expected splits of {', '.join(builder.info.splits)}, joined by "
                f"+; found {name!r}."
            )
        shards += map(str, builder.info.splits[name].filepaths)
    for shard in shards:
        _index(shard, label_feature)
    found = tfrecord.of_shards(
        str(builder.data_dir),
        shards,
        image_feature=image_feature,
        label_feature=label_feature,
        class_feature="",
    )
    if class_names is None:
        return found
    numbers = map(int, found.class_names)
    return dataclasses.replace(found, class_names=tuple(class_names[number] for number in numbers))


def _index(shard, label_feature):
    """Writes down where a shard's records lie, if that may be, so that it is read through once."""
    if not os.path.exists(f"{shard}.index.npz"):
        with contextlib.suppress(OSError):
            records.write_index(shard, label_feature=label_feature)
