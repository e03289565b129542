import warnings

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.data.records import RecordFiles
from circle_tf.data.sampling import PKSampler, part_of_batch, pk_dataset, raw_bits

LABELS = np.repeat([3, 1, 2**40, -5, 8], [4, 9, 6, 5, 7])


def _sampler(labels=LABELS, p=2, k=3, seed=0):
    return PKSampler(labels, classes_per_batch=p, examples_per_class=k, seed=seed)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    p=st.integers(2, 5),
    k=st.integers(2, 6),
    step=st.integers(0, 2**40),
    seed=st.integers(0, 2**63 - 1),
)
def test_batch_is_p_classes_of_k_and_depends_on_seed_and_step_alone(sizes, p, k, step, seed):
    p = min(p, len(sizes))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer than K
        sampler, other = (_sampler(labels, p, k, seed) for _ in range(2))
    other(step + 5)  # leaves no trace
    rows = sampler(step)
    np.testing.assert_array_equal(rows, other(step))
    assert rows.shape == (p * k,) and rows.dtype == np.int64
    by_class = labels[rows].reshape(p, k)
    assert (by_class == by_class[:, :1]).all()
    assert len(set(by_class[:, 0])) == p
    for class_, members in zip(by_class[:, 0], rows.reshape(p, k), strict=True):
        n = sizes[class_]
        counts = np.unique(members, return_counts=True)[1]
        assert len(counts) == min(n, k)  # all distinct, or every one of the class
        assert counts.max() <= -(-k // n)


def test_known_batches():
    # Written down once: fails when what a seed means changes, as resumed runs would notice.
    sampler = _sampler(np.arange(12) // 4, p=2, k=2, seed=7)
    assert [sampler(step).tolist() for step in (0, 1, 10**9)] == [
        [6, 4, 10, 11],
        [9, 8, 5, 7],
        [2, 1, 7, 4],
    ]


def test_each_class_comes_once_per_round_and_each_example_once_per_cycle():
    labels = np.repeat(np.arange(6), 8)
    sampler = _sampler(labels, p=3, k=2)
    assert sampler.steps_per_epoch == 8
    for round_ in range(8):
        rows = np.concatenate([sampler(2 * round_ + place) for place in range(2)])
        np.testing.assert_array_equal(np.bincount(labels[rows]), np.full(6, 2))
    for cycle in range(2):
        rows = np.concatenate([sampler(8 * cycle + step) for step in range(8)])
        np.testing.assert_array_equal(np.sort(rows), np.arange(48))


def test_classes_left_over_by_a_round_change():
    sampler = _sampler(p=2)  # 5 classes: one is left out in each round
    left_out = {
        frozenset(LABELS) - {LABELS[row] for step in (2 * r, 2 * r + 1) for row in sampler(step)}
        for r in range(40)
    }
    assert left_out == {frozenset([label]) for label in set(LABELS)}


def test_examples_are_used_evenly_in_the_long_run():
    sampler = _sampler()
    rows = np.concatenate([sampler(step) for step in range(2000)])
    for label in np.unique(LABELS):
        counts = np.bincount(rows, minlength=len(LABELS))[label == LABELS]
        assert counts.max() < 1.2 * counts.min()


def test_seeds_and_rounds_differ():
    batches = {tuple(_sampler(seed=seed)(step)) for seed in range(5) for step in range(0, 10, 2)}
    assert len(batches) == 25


def test_small_classes_are_told_once():
    labels = np.repeat(np.arange(15), [1, 2] + [1] * 10 + [3, 3, 3])
    with pytest.warns(UserWarning) as told:
        sampler = _sampler(labels, p=4)
        for step in range(20):
            sampler(step)
    assert len(told) == 1
    message = str(told[0].message)
    assert "12 of 15 classes" in message
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..." in message
    assert told[0].filename == __file__


def test_steps_per_epoch_is_at_least_one():
    assert _sampler(p=2, k=3).steps_per_epoch == 31 // 6
    assert _sampler(p=5, k=4).steps_per_epoch == 1


def test_column_of_labels_is_taken():
    np.testing.assert_array_equal(_sampler(LABELS[:, None])(3), _sampler()(3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"p": 6}, "at least classes_per_batch=6 classes, found 5"),
        ({"p": 1}, "classes_per_batch of at least 2.*negatives"),
        ({"k": 1}, "examples_per_class of at least 2.*positives"),
        ({"labels": np.array([], np.int64)}, r"at least one example, found \(0,\)"),
        ({"labels": LABELS.reshape(1, -1)}, r"labels \[N\].*found \(1, 31\)"),
        ({"labels": LABELS.astype(float)}, "integer labels, found float64"),
        ({"labels": np.array(["a", "b"])}, "integer labels, found <U1.*np.unique"),
        ({"seed": -1}, "seed from 0 to"),
        ({"seed": 2**63}, "seed from 0 to"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        _sampler(**change)


def test_negative_step():
    with pytest.raises(ValueError, match="from 0 on, found -1"):
        _sampler()(-1)


def test_raw_bits_of_different_places_differ():
    places = [(0,), (1,), (0, 1), (0, 0, 1), (1, 1, 1)]
    assert len({tuple(raw_bits(3, seed=5, place=place)) for place in places}) == 5
    long, short = (raw_bits(count, seed=5, place=(2, 3, 4)) for count in (9, 2))
    np.testing.assert_array_equal(long[:2], short)


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


def _augment(images, seed):
    noise = tf.random.stateless_uniform(tf.shape(images), seed, 0, 9, tf.int32)
    return tf.cast(images, tf.int32) + noise


@pytest.mark.parametrize("source", [_array, _files, _records])
def test_every_source_yields_the_rows_of_the_sampler(source, tmp_path):
    examples, decode = source(tmp_path)
    sampler = _sampler(seed=4)
    batches = list(_dataset(examples, decode=decode))
    assert len(batches) == 6
    for step, (images, ids) in enumerate(batches):
        np.testing.assert_array_equal(images, _images()[sampler(step)])
        np.testing.assert_array_equal(ids, LABELS[sampler(step)])


@pytest.mark.parametrize("source", [_array, _files, _records])
def test_resumed_stream_is_bitwise_the_rest_of_the_whole_one(source, tmp_path):
    examples, decode = source(tmp_path)
    whole = list(_dataset(examples, decode=decode, num_steps=None, augment=_augment).take(9))
    rest = list(_dataset(examples, decode=decode, start_step=5, num_steps=4, augment=_augment))
    assert len(rest) == 4
    for expected, found in zip(whole[5:], rest, strict=True):
        np.testing.assert_array_equal(expected[0], found[0])
        np.testing.assert_array_equal(expected[1], found[1])


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
    np.testing.assert_array_equal(images, _images()[_sampler(seed=4)(0)])


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": LABELS[:-1]}, "30 labels and 31 examples"),
        ({"start_step": -1}, "from 0 on, found -1"),
        ({"num_steps": -2}, "from 0 on, found 0 and -2"),
        ({"decode": _decode}, "decode=None for images in memory"),
        ({"examples": ["a.png"] * 31}, r"decode=fn\(bytes\)"),
        ({"examples": _images()[:0], "labels": LABELS[:0]}, "at least one example"),
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
