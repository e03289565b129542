"""Sets that TensorFlow Datasets itself wrote, by its own builders, on made-up examples."""

import os
from unittest import mock

import numpy as np
import pytest

from trainers import data, datasets
from trainers.datasets import base, tfds

library = pytest.importorskip("tensorflow_datasets")


def prepare(name, data_dir, splits, *, side, **features):
    """Prepares a set: split to list of labels; of each class the images are of one grey."""
    builder = library.builder(name, data_dir=data_dir)

    def examples(split, labels):
        for row, label in enumerate(labels):
            image = np.full([side, side, 3], label % 256, np.uint8)
            yield f"{split}{row}", {**features, "image": image, "label": label}

    made = {split: examples(split, labels) for split, labels in splits.items()}
    config = library.download.DownloadConfig(compute_stats="skip", try_download_gcs=False)
    with mock.patch.object(type(builder), "_split_generators", lambda *_: made):
        builder.download_and_prepare(download_config=config)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("data_dir"))
    splits = {"train": [0, 1, 2] * 3, "test": [900, 901] * 2, "small1": [0, 1] * 2}
    prepare("omniglot", folder, splits, side=105, alphabet=0, alphabet_char_id=0)
    splits = {"train": [0, 1, 2, 3] * 3, "test": [0, 1, 2, 3, 4]}
    prepare("cifar10", folder, splits, side=32, id="")
    return folder


def load(name, root, **changes):
    return datasets.load({"name": f"tfds:{name}", "path": root, "image_size": 8, **changes})


def _greys(split):
    """The class of each image by its pixels, and by its label and name."""
    return split.images()[:, 4, 4, 0].tolist(), split.labels.tolist()


def test_splits_without_a_common_class_are_as_given(root):
    found = load("omniglot", root)
    assert (found.train.class_names, found.test.class_names) == (("0", "1", "2"), ("900", "901"))
    greys, labels = _greys(found.train)
    assert greys == labels and sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    greys, labels = _greys(found.test)
    assert greys == [(900 + label) % 256 for label in labels] and len(labels) == 4


def test_splits_with_common_classes_are_divided_by_class(root):
    found = load("cifar10", root)
    names = library.builder("cifar10", data_dir=root).info.features["label"].names
    assert len(found.train) + len(found.test) == 17
    assert not set(found.train.class_names) & set(found.test.class_names)
    for split in (found.train, found.test):
        assert all(
            names[grey] == split.class_names[label]
            for grey, label in zip(*_greys(split), strict=True)
        )


def test_the_same_order_every_time(root):
    first, again = (load("cifar10", root) for _ in range(2))
    assert first.train.identities.tolist() == again.train.identities.tolist()
    np.testing.assert_array_equal(first.train.images(), again.train.images())


def test_splits_by_name(root):
    found = load("omniglot", root, train_split="small1", test_split="train+test")
    assert (len(found.train), len(found.test)) == (4, 13)
    assert "2 classes to test on are trained on too" in found.report
    assert set(tfds.collect("tfds:omniglot", root, splits=("train+small1", ""))) == {"all"}
    with pytest.raises(base.DataError, match="expected splits of .*small1.*found 'none'"):
        load("omniglot", root, train_split="none")
    with pytest.raises(base.DataError, match="test_split=test wants dataset.train_split"):
        load("omniglot", root, test_split="test")


def test_an_index_is_written_once_where_that_may_be(root):
    load("omniglot", root)
    folder = os.path.join(root, "omniglot", "3.0.0")
    (index,) = (name for name in os.listdir(folder) if "-test." in name and "index" in name)
    before = os.stat(os.path.join(folder, index)).st_mtime_ns
    load("omniglot", root)
    assert os.stat(os.path.join(folder, index)).st_mtime_ns == before


def test_check_and_convert(root, tmp_path):
    told = data.check(root, dataset="tfds:omniglot")
    assert "train: 9 images of 3 classes, 0 unreadable." in told
    output = str(tmp_path / "shards")
    data.convert(root, dataset="tfds:omniglot", output=output)
    before = load("omniglot", root)
    parts = {"path": f"{output}/train", "test_path": f"{output}/test"}
    after = datasets.load({"name": "tfrecord", **parts, "image_size": 8})
    np.testing.assert_array_equal(after.train.images(), before.train.images())
    assert after.test.class_names == before.test.class_names


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("cars196", {}, "is not prepared: .*`tfds build cars196` fetches it .from https://ai.stan"),
        ("omniglott", {}, "There is no tfds:omniglott"),
        ("omniglot:9.9.9", {}, "There is no tfds:omniglot:9.9.9: .*only: 3.0.0"),
        ("omniglot", {"image_feature": "alphabet"}, "an Image in the feature 'alphabet'; there ar"),
        (
            "omniglot",
            {"label_feature": "image"},
            r"a whole number in the feature 'image'.*label \(",
        ),
    ],
)
def test_sets_that_cannot_be(root, name, changes, message):
    with pytest.raises(base.DataError, match=message) as error:
        load(name, root, **changes)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700


def test_images_turned_by_quarters_are_classes_to_train_on(root):
    plain, found = load("omniglot", root), load("omniglot", root, turned_classes=True)
    assert len(found.train.class_names) == 12 and found.train.class_names[3] == "0 turned 90"
    np.testing.assert_array_equal(found.train.images()[9:18], plain.train.images())
    assert found.test.class_names == plain.test.class_names
