"""Cosines to class weights."""

import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests import reference

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


@pytest.mark.parametrize("classes", [1, 0, 2.5])
def test_cosine_classifier_wants_two_classes(classes):
    with pytest.raises(ValueError, match="num_classes must be"):
        circle_tf.CosineClassifier(classes)
