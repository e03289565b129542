import numpy as np
import pytest

from trainers import datasets
from trainers.datasets import base


def test_load_finds_the_data_set_by_name():
    assert datasets.load({"name": "digits", "image_size": 8, "channels": 1}).name == "digits"


def test_unknown_name_is_told_with_the_known_ones():
    with pytest.raises(
        base.DataError, match="glyphs, digits, folder, table, tfrecord.*tfds: .*'glyph'"
    ):
        datasets.load({"name": "glyph"})


def test_images_come_in_the_order_asked_for():
    examples = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1)
    split = base.Split(examples, [0, 0, 1], ("a", "b"))
    np.testing.assert_array_equal(split.images([2, 0]).ravel(), [2, 0])
    np.testing.assert_array_equal(split.images(), examples)


def test_lengths_that_differ_are_refused():
    with pytest.raises(base.DataError, match=r"each of 2 examples.*\(3,\)"):
        base.Split(np.zeros([2, 1, 1, 1], np.uint8), [0, 0, 0], ("a",))


def test_labels_without_a_name_are_refused():
    with pytest.raises(base.DataError, match="labels from 0 to 0.*found 0 to 1"):
        base.Split(np.zeros([2, 1, 1, 1], np.uint8), [0, 1], ("a",))
