import numpy as np
import pytest
import tensorflow as tf

from configs import digits
from trainers import datasets
from trainers.cli import commands
from trainers.datasets import base, memory
from trainers.outputs import report, run_data
from trainers.outputs import workdir as workdirs
from trainers.training import loop

LABELS = np.repeat([3, 5, 8, 9, 11], 4)


def pictures(labels=LABELS, *, shape=(8, 8, 1), seed=0):
    """Of each class one pattern, with noise."""
    noise = np.random.default_rng(seed).integers(0, 30, (len(labels), *shape))
    patterns = np.random.default_rng(7).integers(0, 220, (20, *shape))
    return (patterns[labels] + noise).astype(np.uint8)


def test_classes_are_held_out_as_of_a_folder():
    found = memory.from_arrays(pictures(), LABELS)
    assert found.image_shape == (8, 8, 1)
    names = {*found.train.class_names, *found.test.class_names}
    assert names == {"3", "5", "8", "9", "11"} and len(found.test.class_names) == 2
    for split in (found.train, found.test):
        rows = np.isin(LABELS.astype(str), split.class_names)
        np.testing.assert_array_equal(split.images(), pictures()[rows])
        told = [split.class_names[label] for label in split.labels]
        assert told == LABELS[rows].astype(str).tolist()


def test_queries_and_gallery_count_the_same_classes():
    images, labels = pictures(), LABELS.astype(str)
    part = {"queries": (images[:2], ["b", "a"]), "gallery": (images[:3], ["c", "b", "a"])}
    found = memory.from_arrays(images, labels, **part)
    assert found.queries.class_names == found.gallery.class_names == ("a", "b", "c")
    assert (found.queries.labels.tolist(), found.gallery.labels.tolist()) == ([1, 0], [2, 1, 0])


@pytest.mark.parametrize("batch", [0, 3])
def test_tf_data_is_what_it_yields(batch):
    names = np.array([f"class {label}" for label in LABELS])
    data = tf.data.Dataset.from_tensor_slices((pictures(), names))
    found = memory.from_tf_data(data.batch(batch) if batch else data)
    expected = memory.from_arrays(pictures(), names)
    for split in ("train", "test"):
        one, other = getattr(found, split), getattr(expected, split)
        assert one.class_names == other.class_names
        np.testing.assert_array_equal(one.images(), other.images())


def _images(dtype=np.uint8, shape=(4, 2, 2, 1)):
    return np.zeros(shape, dtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: memory.from_arrays(_images(np.float32), [0] * 4), "uint8 pixels.*found float32"),
        (lambda: memory.from_arrays(_images(shape=(4, 2, 2, 4)), [0] * 4), "1 or 3 channels"),
        (lambda: memory.from_arrays(_images(), [0] * 3), r"each of 4 images, found int64 \[3\]"),
        (lambda: memory.from_arrays(_images(), [0.5] * 4), "a whole number or a text"),
        (lambda: memory.from_arrays(_images(), [0, 0, 1, 1]), "found 2 and test_fraction 0.2. Giv"),
        (
            lambda: memory.from_arrays(
                _images(), [0, 0, 1, 1], test=(_images(shape=(4, 3, 2, 1)), [0] * 4)
            ),
            r"of one size, found \[\[2, 2, 1\], \[3, 2, 1\]\]",
        ),
        (lambda: memory.from_arrays(_images(), [0] * 4, queries=(_images(), [0] * 4)), "give both"),
        (lambda: memory.from_tf_data(tf.data.Dataset.range(3)), "of .image, label., found one of"),
        (
            lambda: memory.from_tf_data(tf.data.Dataset.from_tensors((_images()[0], 0)).repeat()),
            "with an end: leave .repeat",
        ),
    ],
)
def test_what_cannot_be(make, message):
    with pytest.raises(base.DataError, match=message):
        make()


def test_a_run_keeps_the_name_and_size_of_what_it_was_given():
    given = memory.from_arrays(pictures(shape=(8, 10, 3)), LABELS)
    kept = run_data.as_given(digits.get_config(), given).dataset
    assert (kept.name, kept.image_size, kept.image_width, kept.channels) == ("arrays", 8, 10, 3)
    with pytest.raises(datasets.DataError, match="given from Python: give it again, as dataset="):
        datasets.load(kept)


# Slow: trains, evaluates, refuses and goes on.
@pytest.mark.slow
def test_a_run_on_arrays_is_evaluated_on_them_and_goes_on_over_the_same_only(tmp_path, capsys):
    config = digits.get_config()
    config.deterministic = False
    config.steps = config.eval_every = config.checkpoint_every = 2
    config.batch.classes_per_batch, config.batch.examples_per_class = 2, 2
    given = memory.from_arrays(pictures(shape=(8, 10, 3)), LABELS)
    run = loop.train(config, workdir=str(tmp_path / "run"), dataset=given)
    assert workdirs.Workdir(run.path).recipe().dataset.name == "arrays"
    report.evaluate_run(run.path, dataset=given)
    assert "leave-one-out" in capsys.readouterr().out
    with pytest.raises(datasets.DataError, match="given from Python: give it again, as dataset="):
        report.evaluate_run(run.path)
    config.steps = 3
    other = memory.from_arrays(pictures(shape=(8, 10, 3), seed=1), LABELS)
    with pytest.raises(commands.ConfigError, match="with other examples: "):
        loop.train(config, workdir=run.path, dataset=other)
    loop.train(config, workdir=run.path, dataset=given)
    assert workdirs.read_json(run.run)["step"] == 3
