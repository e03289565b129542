"""Reductions, what each mean divides by; which rows of a batch a loss can use."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.losses import base

LOSSES = tf.constant([6.0, 0.0, 3.0, 0.0])
VALID = tf.constant([True, True, True, False])


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("mean_valid", 3.0), ("mean", 2.25), ("sum", 9.0), ("mean_nonzero", 4.5)],
)
def test_divisors(reduction, expected):
    assert float(base.reduce_losses(LOSSES, VALID, reduction=reduction)) == expected


def test_none_keeps_every_anchor():
    found = base.reduce_losses(LOSSES, VALID, reduction="none", sample_weight=2.0)
    assert found.numpy().tolist() == [12, 0, 6, 0]


@pytest.mark.parametrize("reduction", ["mean_valid", "mean", "mean_nonzero", "sum"])
def test_nothing_valid_gives_zero(reduction):
    zeros, none = tf.zeros([3]), tf.zeros([3], tf.bool)
    assert float(base.reduce_losses(zeros, none, reduction=reduction)) == 0


@pytest.mark.parametrize("reduction", ["mean_valid", "mean", "mean_nonzero", "sum"])
def test_nan_is_never_hidden(reduction):
    losses, none = tf.constant([np.nan, 0.0]), tf.zeros([2], tf.bool)
    assert np.isnan(float(base.reduce_losses(losses, none, reduction=reduction)))


@pytest.mark.parametrize(
    "weights", [[1, 2, 0, 5], [[1.0], [2], [0], [5]], np.float64([1, 2, 0, 5])]
)
def test_weights_scale_but_do_not_count(weights):
    found = base.reduce_losses(LOSSES, VALID, reduction="mean_valid", sample_weight=weights)
    assert float(found) == 2.0


@pytest.mark.parametrize("weights", [[1.0, 2.0], np.ones((4, 2)), np.ones((4, 1, 1))])
def test_weights_of_another_shape_are_refused(weights):
    with pytest.raises(ValueError, match="one weight per example"):
        base.reduce_losses(LOSSES, VALID, reduction="sum", sample_weight=weights)


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="must be one of mean_valid.*found 'average'"):
        base.check_reduction("average")


def test_the_number_of_classes_may_be_known_only_when_run():
    @tf.function(input_signature=[tf.TensorSpec([None, None])])
    def usable(cosines):
        return base.class_batch(cosines, [2, 3]).usable

    assert usable(tf.zeros([2, 3])).numpy().tolist() == [True, False]
    assert usable(tf.zeros([2, 4])).numpy().tolist() == [True, True]


def test_rows_are_usable_if_finite_and_all_labels_exact():
    rows = tf.constant([[1.0, 0.0], [np.nan, 0.0], [np.inf, 0.0]])
    assert base.usable_rows(rows, [1, 2, 3]).numpy().tolist() == [True, False, False]
    assert base.usable_rows(rows, np.float32([1, 2, 2**24])).numpy().tolist() == [False] * 3
