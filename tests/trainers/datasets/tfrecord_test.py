import re

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.data.pipeline import pk_dataset
from tests.pictures import picture
from trainers import datasets
from trainers.datasets import base, tfrecord


def _feature(value):
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _write(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            feature = {name: _feature(value) for name, value in example.items()}
            features = tf.train.Features(feature=feature)
            writer.write(tf.train.Example(features=features).SerializeToString())


def _example(label, seed):
    return {"image": picture(seed=seed), "label": label, "class": b"name%d" % label}


@pytest.fixture
def root(tmp_path):
    """Five classes with large labels, two images each, in two shards."""
    root = tmp_path / "shards"
    root.mkdir()
    labels = [7, 10**12, -3, 40, 5]
    _write(root / "a-00000-of-00002.tfrecord", [_example(label, 1) for label in labels])
    _write(root / "a-00001-of-00002.tfrecord", [_example(label, 2) for label in labels])
    return root


def _load(path, **changes):
    return datasets.load({"name": "tfrecord", "path": str(path), "image_size": 8, **changes})


def test_classes_are_named_divided_and_labelled_from_zero(root):
    dataset = _load(root)
    names = [*dataset.train.class_names, *dataset.test.class_names]
    assert sorted(names) == sorted(f"name{label}" for label in (7, 10**12, -3, 40, 5))
    assert len(dataset.train.class_names) == 3
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), 2)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), 2)


def test_images_belong_to_their_labels(root):
    found = tfrecord.collect(str(root)).split((9, 9, 3))
    assert len(found.images([4])) == 1
    for example, label in zip(found.examples.fetch(range(10)), found.labels, strict=True):
        parsed = tf.train.Example.FromString(example).features.feature
        assert parsed["class"].bytes_list.value[0].decode() == found.class_names[label]


def test_feeds_the_sampler(root):
    train = _load(root).train
    images, ids = next(
        iter(
            pk_dataset(
                train.examples,
                train.labels,
                classes_per_batch=3,
                examples_per_class=2,
                decode=train.decode,
            )
        )
    )
    assert images.shape == (6, 8, 8, 3) and images.dtype == tf.uint8
    assert sorted(ids.numpy()) == [0, 0, 1, 1, 2, 2]


def test_other_feature_names_and_no_class_names(tmp_path):
    for shard, labels in (("train", [1, 2, 3]), ("val", [8, 9])):
        _write(
            tmp_path / f"{shard}.tfrecord",
            [{"image/encoded": picture(), "image/class": label} for label in labels],
        )
    dataset = _load(
        tmp_path / "train.tfrecord",
        test_path=str(tmp_path / "val.tfrecord"),
        image_feature="image/encoded",
        label_feature="image/class",
    )
    assert dataset.train.class_names == ("1", "2", "3")
    assert dataset.test.class_names == ("8", "9")
    assert dataset.test.images().shape == (2, 8, 8, 3)


def test_unreadable_images_are_told_by_file_and_offset(root):
    bad = [{"image": b"no image", "label": 7}, {"label": 40}]
    _write(root / "b.tfrecord", bad)
    dataset = _load(root)
    assert len(dataset.train) + len(dataset.test) == 10
    assert "skipped 2 unreadable of 12 images" in dataset.report
    assert f"{root / 'b.tfrecord'}, record at byte 0" in dataset.report


def test_damaged_shard_is_an_error_with_file_and_offset(root):
    path = root / "a-00001-of-00002.tfrecord"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(base.DataError, match=r"a-00001-of-00002\.tfrecord, record at byte 0: "):
        _load(root)


@pytest.mark.parametrize(
    "name",
    [
        "a-{}-of-00002.tfrecord",
        "set-train.tfrecord-{}-of-00002",
        "a_{}_of_00002.tfrecord",
        "a.tfrecord.{}.of.00002",
    ],
)
def test_missing_shard(root, name):
    for number in range(2):
        shard = f"0000{number}"
        (root / f"a-{shard}-of-00002.tfrecord").rename(root / name.format(shard))
    assert len(_load(root).train.class_names) == 3
    (root / name.format("00000")).unlink()
    pattern = f"expected 2 shards {re.escape(name.format('*'))}, found 1"
    with pytest.raises(base.DataError, match=pattern):
        _load(root)


def test_no_shards(tmp_path):
    with pytest.raises(base.DataError, match="trainers.data convert writes them"):
        _load(tmp_path)
    with pytest.raises(base.DataError, match="found none at .*missing"):
        _load(tmp_path / "missing")


def test_shards_without_records(tmp_path):
    _write(tmp_path / "a.tfrecord", [])
    with pytest.raises(base.DataError, match="found none in 1 files"):
        _load(tmp_path)


def test_one_class(tmp_path):
    _write(tmp_path / "a.tfrecord", [_example(1, 1), _example(1, 2)])
    with pytest.raises(base.DataError, match="2 or more classes to train on, found 1: name1"):
        _load(tmp_path)
