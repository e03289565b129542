import glob
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.data.records import RecordFiles
from circle_tf.fine_tuning import cache_features, digests, features

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1)).astype(np.uint8)


def net(seed=0, *, units=3, scale=255):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((4, 4, 1))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / scale)(x))
    x = keras.layers.BatchNormalization()(keras.layers.Dense(units)(x))
    return keras.Model(inputs, keras.layers.Dropout(0.5)(x))


class Pieces:
    """Counts what is computed, and stops after so many pieces."""

    def __init__(self, stop_after=None):
        self.sizes, self._stop_after = [], stop_after

    def __call__(self, pieces):
        for number, piece in enumerate(pieces):
            if number == self._stop_after:
                raise KeyboardInterrupt
            self.sizes.append(len(piece))
            yield piece


def computed(backbone, images, folder, **options):
    pieces = Pieces()
    found = cache_features(backbone, images, folder, progress=pieces, **options)
    return found, sum(pieces.sizes)


def test_features_are_those_of_inference_and_computed_once(tmp_path):
    backbone = net()
    found, count = computed(backbone, IMAGES, tmp_path, batch_size=4)
    assert (count, found.dtype) == (10, np.float32)
    np.testing.assert_allclose(found, backbone(IMAGES, training=False), atol=1e-6)
    again, count = computed(net(), IMAGES, tmp_path)  # Another object, with numbers in its names.
    assert count == 0
    np.testing.assert_array_equal(again, found)


def test_what_changes_is_computed_anew_and_that_alone(tmp_path):
    computed(net(), IMAGES, tmp_path)
    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    found, count = computed(net(), changed[::-1], tmp_path)
    assert count == 1
    np.testing.assert_allclose(found, net()(changed[::-1]), atol=1e-6)
    for other in (net(seed=1), net(units=4), net(scale=256)):
        assert computed(other, IMAGES, tmp_path)[1] == 10
    assert computed(net(), IMAGES, tmp_path)[1] == 0


def test_an_image_that_is_there_twice_is_computed_once(tmp_path):
    rows = [0, 1, 0, 2, 1]
    found, count = computed(net(), IMAGES[rows], tmp_path)
    assert count == 3
    np.testing.assert_allclose(found, net()(IMAGES[rows]), atol=1e-6)


def test_an_interrupted_computation_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "_PIECE", 4)
    with pytest.raises(KeyboardInterrupt):
        cache_features(net(), IMAGES, tmp_path, progress=Pieces(stop_after=2))
    found, count = computed(net(), IMAGES, tmp_path)
    assert count == 2
    np.testing.assert_allclose(found, net()(IMAGES), atol=1e-6)
    assert not [name for _, _, names in os.walk(tmp_path) for name in names if "partial" in name]


@pytest.mark.parametrize("damage", ["cut short", "other bytes"])
def test_a_damaged_file_is_told_and_computed_anew(tmp_path, damage):
    computed(net(), IMAGES, tmp_path)
    (path,) = glob.glob(str(tmp_path / "*" / "features-*.tfrecord"))
    with open(path, "r+b") as file:
        if damage == "cut short":
            file.truncate(60)
        else:
            file.seek(60)
            file.write(b"????")
    with pytest.warns(UserWarning, match=rf"{path} is damaged \(.*\): its features are computed"):
        found, count = computed(net(), IMAGES, tmp_path)
    np.testing.assert_allclose(found, net()(IMAGES), atol=1e-6)
    assert count >= 9 and computed(net(), IMAGES, tmp_path)[1] == 0


def decode(content):
    return tf.ensure_shape(tf.io.decode_png(content), [4, 4, 1])


@pytest.fixture
def paths(tmp_path):
    found = [str(tmp_path / f"{number}.png") for number in range(len(IMAGES))]
    for path, image in zip(found, IMAGES, strict=True):
        tf.io.write_file(path, tf.io.encode_png(image))
    return found


def test_files_are_known_by_path_size_and_time(paths, tmp_path):
    found, _ = computed(net(), paths, tmp_path / "cache", decode=decode)
    np.testing.assert_allclose(found, net()(IMAGES), atol=1e-6)
    os.utime(paths[4], ns=(1, 1))
    assert computed(net(), paths, tmp_path / "cache", decode=decode)[1] == 1
    keys = [str(number) for number in range(10)]
    assert computed(net(), paths, tmp_path / "cache", decode=decode, keys=keys)[1] == 10
    os.utime(paths[5], ns=(2, 2))
    assert computed(net(), paths, tmp_path / "cache", decode=decode, keys=keys)[1] == 0


def test_records_are_known_by_their_bytes(tmp_path):
    def example(image):
        of_bytes = tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
        label = tf.train.Feature(int64_list=tf.train.Int64List(value=[0]))
        feature = {"image": tf.train.Feature(bytes_list=of_bytes), "label": label}
        return tf.train.Example(features=tf.train.Features(feature=feature))

    path = str(tmp_path / "a.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for image in IMAGES:
            writer.write(example(image).SerializeToString())
    schema = {"image": tf.io.FixedLenFeature([], tf.string)}

    def of_record(data):
        return decode(tf.io.parse_single_example(data, schema)["image"])

    for expected in (10, 0):
        records = RecordFiles([path])
        found, count = computed(net(), records, tmp_path / "cache", decode=of_record)
        assert count == expected
    np.testing.assert_allclose(found, net()(IMAGES), atol=1e-6)


def test_half_precision_is_kept_as_it_is(tmp_path):
    x = keras.Input((4,))
    backbone = keras.Model(x, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))
    rows = np.ones([3, 4], np.float32)
    found = [computed(backbone, rows, tmp_path) for _ in range(2)]
    assert found[1][1] == 0 and found[1][0].dtype == tf.bfloat16.as_numpy_dtype
    np.testing.assert_array_equal(found[1][0], backbone(rows).numpy())


def test_the_digest_is_of_what_counts():
    same = {digests.backbone_digest(net()) for _ in range(2)}
    assert len(same) == 1
    assert digests.backbone_digest(net(scale=254)) not in same


def test_what_cannot_be_is_refused(tmp_path):
    x = keras.Input((4,))
    several = keras.Model(x, [keras.layers.Dense(2)(x), keras.layers.Dense(2)(x)])
    with pytest.raises(ValueError, match="one output of a fixed shape; .* has 1 inputs"):
        cache_features(several, np.ones([1, 4]), tmp_path)
    with pytest.raises(ValueError, match="a key for each of 10 images, found 1 keys"):
        cache_features(net(), IMAGES, tmp_path, keys=["a"])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/\w+ cannot be written to: Not a directory"):
        cache_features(net(), IMAGES, tmp_path / "file")
