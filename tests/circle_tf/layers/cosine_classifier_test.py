"""Cosines to class weights."""

import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests import reference, stacks

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "float64"]


def rows_and_ids(*, size=12, dim=6, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, dim)).astype(dtype), np.arange(size) // 3


@pytest.mark.parametrize("policy", POLICIES)
def test_cosine_classifier_gives_cosines_in_float32(policy):
    rows, _ = rows_and_ids(dtype=np.float64 if policy == "float64" else np.float32)
    layer = circle_tf.CosineClassifier(4, dtype=policy)
    cosines = layer(rows)
    expected = reference.normalize(rows) @ reference.normalize(layer.class_weights.numpy()).T
    assert cosines.dtype == (tf.float64 if policy == "float64" else tf.float32)
    np.testing.assert_allclose(cosines, expected, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_nearest_sub_centre_is_the_class_s_cosine_and_alone_learns(jit_compile):
    rows, _ = rows_and_ids()
    layer = circle_tf.CosineClassifier(4, sub_centers=3)
    layer.build(rows.shape)
    weights = layer.class_weights.numpy()
    every = reference.normalize(rows) @ reference.normalize(weights.reshape(12, 6)).T
    every = every.reshape(len(rows), 4, 3)
    cosines = tf.function(layer, jit_compile=jit_compile)(rows[:2])
    np.testing.assert_allclose(cosines, every[:2].max(axis=2), atol=1e-6)
    with tf.GradientTape() as tape:
        own = layer(rows[:1])[0, 2]
    gradient = tape.gradient(own, stacks.tensors([layer.class_weights]))[0]
    learns = np.abs(gradient).max(axis=2) > 0
    assert np.argwhere(learns).tolist() == [[2, every[0, 2].argmax()]]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nan_is_seen_behind_sub_centres(jit_compile):
    layer = tf.function(circle_tf.CosineClassifier(4, sub_centers=2), jit_compile=jit_compile)
    assert np.isnan(layer(tf.constant([[1.0, 0.0, float("nan"), 0.0, 2.0, 0.0]]))).all()


def test_one_sub_centre_is_the_layer_without():
    rows, _ = rows_and_ids()
    layer = circle_tf.CosineClassifier(4, sub_centers=1)
    layer.build(rows.shape)
    assert layer.class_weights.shape == (4, 6)
    again = circle_tf.CosineClassifier.from_config(
        circle_tf.CosineClassifier(4, sub_centers=3).get_config()
    )
    assert (again.num_classes, again.sub_centers) == (4, 3)


@pytest.mark.parametrize("centers", [0, 1.5, None])
def test_sub_centres_are_counted_from_one(centers):
    with pytest.raises(ValueError, match="sub_centers must be"):
        circle_tf.CosineClassifier(4, sub_centers=centers)


@pytest.mark.parametrize("classes", [1, 0, 2.5])
def test_cosine_classifier_wants_two_classes(classes):
    with pytest.raises(ValueError, match="num_classes must be"):
        circle_tf.CosineClassifier(classes)
