"""Safe normalisation and logsumexp at the edges of float32."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.ops import numerics
from tests import reference


def normalize_with_gradient(rows, upstream, *, jit=False):
    @tf.function(jit_compile=jit)
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            unit = numerics.safe_normalize(x)
        return unit, tape.gradient(unit, x, output_gradients=tf.cast(upstream, unit.dtype))

    return [t.numpy() for t in compute(tf.constant(rows))]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25, 1e35, 1e-29])
def test_direction_and_gradient_at_any_scale(scale, jit):
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(5, 7)) * scale / 3).astype(np.float32)
    upstream = rng.normal(size=(5, 7)).astype(np.float32)
    unit, gradient = normalize_with_gradient(rows, upstream, jit=jit)
    np.testing.assert_allclose(unit, reference.normalize(rows), atol=2e-7)
    expected = reference.normalize_gradient(rows, upstream)
    np.testing.assert_allclose(gradient, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize("jit", [False, True])
def test_zero_rows_stay_zero_with_zero_gradient(jit):
    rows = np.array([[0, 0], [3, 4], [1e-40, 0]], np.float32)
    unit, gradient = normalize_with_gradient(rows, np.ones((3, 2), np.float32), jit=jit)
    np.testing.assert_allclose(unit, [[0, 0], [0.6, 0.8], [0, 0]], atol=1e-7)
    assert (gradient[[0, 2]] == 0).all() and (gradient[1] != 0).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("jit", [False, True])
def test_a_bad_value_makes_its_row_nan_and_no_other(bad, jit):
    unit, _ = normalize_with_gradient(
        np.array([[bad, 1.0], [3.0, 4.0]], np.float32), np.ones((2, 2), np.float32), jit=jit
    )
    assert np.isnan(unit[0]).any() and np.isfinite(unit[1]).all()


@pytest.mark.parametrize("jit", [False, True])
def test_a_row_of_nan_alone_is_no_zero_row(jit):
    normalize = tf.function(numerics.safe_normalize, jit_compile=jit)
    unit = normalize(np.array([[np.nan, np.nan], [0.0, 0.0]], np.float32)).numpy()
    assert np.isnan(unit[0]).all() and (unit[1] == 0).all()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.int32])
def test_low_precision_rows_are_normalised_in_float32(dtype):
    unit = numerics.safe_normalize(tf.cast([[3, 4]], dtype))
    assert unit.dtype == tf.float32
    np.testing.assert_allclose(unit, [[0.6, 0.8]], atol=1e-7)


def test_float64_stays_float64():
    rows = np.random.default_rng(1).normal(size=(4, 3))
    unit = numerics.safe_normalize(rows)
    assert unit.dtype == tf.float64
    np.testing.assert_allclose(unit, reference.normalize(rows), atol=1e-15)


def test_masked_logsumexp_equals_numpy_and_ignores_masked_entries():
    logits = np.array([[1000.0, 1001.0, 5000.0], [-1000.0, -1001.0, np.inf], [1.0, 2.0, 3.0]])
    mask = np.array([[True, True, False], [True, True, False], [False, False, False]])
    found = numerics.masked_logsumexp(logits, mask).numpy()
    pair = np.logaddexp(0, 1)
    np.testing.assert_allclose(found, [1000 + pair, -1001 + pair, 0], rtol=1e-12)


def test_masked_logsumexp_gradient_is_the_softmax_and_zero_without_entries():
    logits = tf.constant([[0.0, 1.0, 9.0], [4.0, 5.0, 6.0]])
    mask = tf.constant([[True, True, False], [False, False, False]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = numerics.masked_logsumexp(logits, mask)
    gradient = tape.gradient(value, logits).numpy()
    np.testing.assert_allclose(gradient[0, :2], tf.nn.softmax([0.0, 1.0]), rtol=1e-6)
    assert gradient[0, 2] == 0 and (gradient[1] == 0).all()


def test_log1p_sum_exp_equals_numpy_and_is_zero_without_entries():
    logits = np.array([[700.0, -3.0, np.inf], [-2.0, 1.0, 5.0], [1.0, 2.0, 3.0]])
    mask = np.array([[True, False, False], [True, True, False], [False, False, False]])
    found = numerics.log1p_sum_exp(logits, mask)
    np.testing.assert_allclose(found, [700, np.log1p(np.exp(-2) + np.exp(1)), 0], rtol=1e-12)


def test_positive_mean_keeps_nan_visible():
    assert np.isnan(numerics.positive_mean(float("nan"), 0).numpy())
    assert numerics.positive_mean(0.0, 0).numpy() == 0
