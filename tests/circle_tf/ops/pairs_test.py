"""Labels to exact ids to masks."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.ops import pairs

WIDE = [2**24, 2**24 + 1, 2**31 + 1, 2**53, 2**53 + 1, 2**62]


@pytest.mark.parametrize("labels", [WIDE, np.array(WIDE), np.array(WIDE)[:, None]])
def test_wide_integers_stay_exact(labels):
    assert pairs.to_ids(labels).numpy().tolist() == WIDE


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
)
def test_every_integer_dtype(dtype):
    highest = np.iinfo(dtype).max
    labels = np.array([highest, highest - 1, highest, 0], dtype)
    ids = pairs.to_ids(labels).numpy()
    np.testing.assert_array_equal(ids[:, None] == ids, labels[:, None] == labels)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_whole_floats_are_taken(dtype):
    assert pairs.to_ids(tf.constant([3, 0, 7], dtype)).numpy().tolist() == [3, 0, 7]


@pytest.mark.parametrize(
    "labels",
    [
        np.float32([0.5]),
        np.float32([2**24]),
        np.float16([2048]),
        np.float64([2**53]),
        np.float32([np.nan]),
        np.float32([np.inf]),
    ],
)
@pytest.mark.parametrize("graph", [False, True])
def test_fractional_or_rounded_floats_are_refused(labels, graph):
    to_ids = tf.function(pairs.to_ids) if graph else pairs.to_ids
    with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must be integer ids"):
        to_ids(tf.constant(labels))
    assert not pairs.float_labels_are_exact(labels)


@pytest.mark.parametrize("shape", [(), (4, 3), (2, 2, 1)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape \[B\] or \[B, 1\]; found shape .*one-hot"):
        pairs.to_ids(np.zeros(shape, np.int64))


def test_labels_of_unknown_shape_are_refused():
    @tf.function(input_signature=[tf.TensorSpec(None, tf.int64)])
    def ids(labels):
        return pairs.to_ids(labels)

    with pytest.raises(ValueError, match=r"unknown shape.*tf.ensure_shape\(labels, \[None\]\)"):
        ids.get_concrete_function()


def test_whole_numbers_of_python_are_ids():
    assert pairs.to_ids(np.array([[2**40], [7]], object)).numpy().tolist() == [2**40, 7]


@pytest.mark.parametrize(
    ("labels", "message"), [(["a", "b"], "found strings.*StringLookup"), ([True], "dtype bool")]
)
def test_other_dtypes_are_refused(labels, message):
    with pytest.raises(TypeError, match=message):
        pairs.to_ids(labels)


def test_one_hot_rows_only_where_asked_for():
    rows = np.eye(4, dtype=np.float32)[[2, 0, 3]]
    assert pairs.to_ids(rows, one_hot=True).numpy().tolist() == [2, 0, 3]
    with pytest.raises(ValueError, match="one_hot=True"):
        pairs.to_ids(rows)
    with pytest.raises(ValueError, match=r"shape \[B, C\]"):
        pairs.to_ids([1, 2], one_hot=True)


@pytest.mark.parametrize("row", [[0.0, 0.0], [1.0, 1.0], [0.3, 0.7]])
def test_rows_that_are_not_one_hot_are_refused(row):
    with pytest.raises(tf.errors.InvalidArgumentError, match="single 1"):
        pairs.to_ids(np.float32([row]), one_hot=True)


def test_an_anchor_is_excluded_by_its_row_not_by_its_value():
    ids = tf.constant([7, 8, 7, 7], tf.int64)
    positives, negatives = pairs.batch_masks(ids[2:], ids, offset=2)
    assert positives.numpy().astype(int).tolist() == [[1, 0, 0, 1], [1, 0, 1, 0]]
    assert negatives.numpy().astype(int).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


def test_class_masks_check_their_range():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0\.\.2 for 3 classes"):
        pairs.class_masks(tf.constant([0, 3], tf.int64), 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0\.\.2 for 3 classes"):
        pairs.class_masks(tf.constant([-1], tf.int64), 3)
