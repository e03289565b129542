import numpy as np
import pytest
import tensorflow as tf

from circle_tf.data.pipeline import part_of_batch, pk_dataset
from circle_tf.data.records import RecordFiles
from circle_tf.data.sampler import PKSampler

LABELS = np.repeat([3, 1, 2**40, -5, 8], [4, 9, 6, 5, 7])
SAMPLER = PKSampler(LABELS, classes_per_batch=2, examples_per_class=3, seed=4)


def _images():
    return np.random.default_rng(0).integers(0, 256, [len(LABELS), 6, 5, 1], np.uint8)


def _decode(content):
    return tf.ensure_shape(tf.io.decode_png(content, channels=1), [6, 5, 1])


def _array(path):
    return _images(), None


def _files(path):
    names = []
    for row, image in enumerate(_images()):
        names.append(path / f"{row}.png")
        names[-1].write_bytes(tf.io.encode_png(image).numpy())
    return names, _decode


def _records(path):
    with tf.io.TFRecordWriter(str(path / "a.tfrecord")) as writer:
        for image, label in zip(_images(), LABELS, strict=True):
            feature = {
                "image": tf.train.Feature(
                    bytes_list=tf.train.BytesList(value=[tf.io.encode_png(image).numpy()])
                ),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())

    def decode(content):
        parsed = tf.io.parse_single_example(
            content, {"image": tf.io.FixedLenFeature([], tf.string)}
        )
        return _decode(parsed["image"])

    return RecordFiles(path / "a.tfrecord"), decode


def _dataset(examples=None, labels=LABELS, decode=None, **changes):
    arguments = {"classes_per_batch": 2, "examples_per_class": 3, "seed": 4, "num_steps": 6}
    examples = _images() if examples is None else examples
    return pk_dataset(examples, labels, decode=decode, **{**arguments, **changes})


def test_batches_of_classes_that_look_alike_are_those_of_the_sampler():
    near = {"nearest_classes": (np.arange(5)[:, None] + [1, 2]) % 5, "group_size": 3}
    size = {"classes_per_batch": 4, "examples_per_class": 3, "seed": 4}
    sampler = PKSampler(LABELS, **size, **near)
    found = [ids.numpy() for _, ids in _dataset(**size, **near)]
    np.testing.assert_array_equal(found, [LABELS[sampler(step)] for step in range(6)])


def _augment(images, seed):
    noise = tf.random.stateless_uniform(tf.shape(images), seed, 0, 9, tf.int32)
    return tf.cast(images, tf.int32) + noise


@pytest.mark.parametrize("source", [_array, _files, _records])
def test_every_source_yields_the_rows_of_the_sampler(source, tmp_path):
    examples, decode = source(tmp_path)
    batches = list(_dataset(examples, decode=decode))
    assert len(batches) == 6
    for step, (images, ids) in enumerate(batches):
        np.testing.assert_array_equal(images, _images()[SAMPLER(step)])
        np.testing.assert_array_equal(ids, LABELS[SAMPLER(step)])


@pytest.mark.parametrize("source", [_array, _files, _records])
def test_resumed_stream_is_bitwise_the_rest_of_the_whole_one(source, tmp_path):
    examples, decode = source(tmp_path)
    whole = list(_dataset(examples, decode=decode, num_steps=None, augment=_augment).take(9))
    rest = list(_dataset(examples, decode=decode, start_step=5, num_steps=4, augment=_augment))
    assert len(rest) == 4
    for expected, found in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_array_equal(expected[1], found[1])


def test_no_tuner_holds_up_who_drops_the_iterator():
    # TensorFlow's own is waited for on one core, for up to the time that it has run.
    assert _dataset().options().autotune.enabled is False


@pytest.mark.parametrize("source", [_array, _files, _records])
def test_shapes_are_static_for_xla(source, tmp_path):
    examples, decode = source(tmp_path)
    images, ids = _dataset(examples, decode=decode, augment=_augment).element_spec
    assert images.shape == (6, 6, 5, 1)
    assert ids == tf.TensorSpec([6], tf.int64)


def test_augmentation_differs_from_step_to_step_and_seed_to_seed():
    def seeds(**changes):
        dataset = _dataset(augment=lambda images, seed: seed, **changes)
        return [tuple(seed.numpy()) for seed, _ in dataset]

    assert len(set(seeds()) | set(seeds(seed=5)) | set(seeds(seed=4 + 2**32))) == 18
    assert seeds() == seeds()


def test_augment_seed_fits_stateless_operations():
    (seed, _), *_ = _dataset(augment=lambda images, seed: seed, seed=2**63 - 1)
    assert seed.shape == (2,) and seed.dtype == tf.int32


def test_large_arrays_are_not_put_into_the_graph():
    dataset = _dataset(np.zeros([len(LABELS), 100_000], np.float32))
    graph = dataset._as_serialized_graph().numpy()
    assert len(graph) < 100_000


def test_anything_numpy_takes_is_examples():
    images, ids = next(iter(_dataset(tf.constant(_images()), labels=tf.constant(LABELS))))
    np.testing.assert_array_equal(images, _images()[SAMPLER(0)])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": LABELS[:-1]}, "30 labels and 31 examples"),
        ({"start_step": -1}, "from 0 on, found -1"),
        ({"num_steps": -2}, "from 0 on, found 0 and -2"),
        ({"decode": _decode}, "decode=None for images in memory"),
        ({"examples": ["a.png"] * 31}, r"decode=fn\(bytes\)"),
        ({"examples": _images()[:0], "labels": LABELS[:0]}, "at least one example"),
        ({"examples": "photos/a.png"}, "list of paths.*the one path 'photos/a.png'.*RecordFiles"),
        ({"examples": {"image": _images()}}, "found dict. Make a list"),
        ({"examples": iter(_images())}, "found .*iterator. Make a list"),
        ({"examples": tf.data.Dataset.from_tensor_slices(_images())}, "found .*Dataset. Make"),
        (
            {"examples": [np.ones([2, 3]), np.ones([4, 3])]},
            r"one size, found \[2, 3\] and \[4, 3\]",
        ),
    ],
)
def test_bad_dataset_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        _dataset(**change)


def test_missing_file_is_named(tmp_path):
    names, decode = _files(tmp_path)
    for name in names:
        name.unlink()
    with pytest.raises(tf.errors.NotFoundError, match=r"\d+\.png"):
        next(iter(_dataset(names, decode=decode)))


def test_trains_a_model():
    import keras

    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    labels = np.arange(len(LABELS)) % 4
    dataset = _dataset(_images().astype(np.float32) / 255, labels=labels, num_steps=None)
    history = model.fit(dataset, steps_per_epoch=3, epochs=2, verbose=0, shuffle=False)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("kind", ["plain", "augmented", "decoded"])
def test_parts_make_up_the_batch(number, kind, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 1)).astype(np.uint8)
    examples, changes = images, {}
    if kind == "augmented":
        changes["augment"] = lambda images, seed: (
            images
            + tf.cast(tf.random.stateless_uniform(images.shape, seed, 0, 9, tf.int32), tf.uint8)
        )
    if kind == "decoded":
        examples = [str(tmp_path / f"{row}.raw") for row in range(20)]
        for path, image in zip(examples, images, strict=True):
            with open(path, "wb") as file:
                file.write(image.tobytes())
        changes["decode"] = lambda content: tf.reshape(
            tf.io.decode_raw(content, tf.uint8), [4, 4, 1]
        )

    def batches(**part):
        dataset = pk_dataset(
            examples,
            np.arange(20) % 5,
            classes_per_batch=5,
            examples_per_class=2,
            start_step=3,
            num_steps=2,
            **changes,
            **part,
        )
        return list(dataset.as_numpy_iterator())

    parts = [batches(part=(index, number)) for index in range(number)]
    for step, (whole, ids) in enumerate(batches()):
        np.testing.assert_array_equal(np.concatenate([part[step][0] for part in parts]), whole)
        np.testing.assert_array_equal(np.concatenate([part[step][1] for part in parts]), ids)


@pytest.mark.parametrize(
    ("part", "message"),
    [((2, 2), "0 <= index < number"), ((0, 9), "8 rows cannot be split into 9")],
)
def test_parts_that_cannot_be(part, message):
    with pytest.raises(ValueError, match=message):
        part_of_batch(8, part=part)
