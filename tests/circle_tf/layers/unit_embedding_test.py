"""Unit embeddings: the normalised projection, in float32."""

import keras
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
def test_unit_embedding_is_unit_in_the_loss_dtype(policy):
    rows, _ = rows_and_ids()
    layer = circle_tf.UnitEmbedding(5, dtype=policy)
    unit = layer(rows)
    assert unit.dtype == (tf.float64 if policy == "float64" else tf.float32)
    symbolic = layer(keras.Input((6,), dtype=rows.dtype))
    assert tf.as_dtype(symbolic.dtype) == unit.dtype
    np.testing.assert_allclose(tf.norm(unit, axis=1), np.ones(12), atol=1e-6)


def test_unit_embedding_is_the_normalised_projection():
    rows, _ = rows_and_ids()
    layer = circle_tf.UnitEmbedding(5, use_bias=False)
    layer.build(rows.shape)
    expected = reference.normalize(rows @ layer.kernel.numpy())
    np.testing.assert_allclose(layer(rows), expected, atol=1e-6)


def test_unit_embedding_refuses_feature_maps():
    with pytest.raises(ValueError, match="GlobalAveragePooling2D"):
        circle_tf.UnitEmbedding(5)(np.ones((2, 4, 4, 3), np.float32))


@pytest.mark.parametrize("dim", [0, -1, 2.5, True])
def test_unit_embedding_refuses_bad_dimensions(dim):
    with pytest.raises(ValueError, match="dim must be a whole number of 1 or more"):
        circle_tf.UnitEmbedding(dim)
