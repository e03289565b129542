"""The maths against the oracle: value of eq. 6, gradients of eq. 9 and 10."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.losses import circle
from tests import reference, stacks
from tests.combinations import diagonal

PAPER = [(0.4, 80.0), (0.25, 256.0), (0.25, 128.0), (-0.2, 32.0), (0.0, 64.0), (0.3, 1024.0)]
MODES = ["eager", "graph", "xla"]
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}


def random_pairs(seed, *, anchors=12, keys=40, low=-1.0, high=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    s = rng.uniform(low, high, (anchors, keys)).astype(dtype)
    kind = rng.integers(0, 3, (anchors, keys))
    kind[0] = 0  # an anchor without a positive
    kind[1] = 1  # an anchor without a negative
    kind[2] = 2  # an anchor without any pair
    return s, kind == 1, kind == 0


def value_and_gradient(s, positives, negatives, *, mode="eager", **options):
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = circle.circle_loss(x, positives, negatives, **options)
        return losses, tape.gradient(losses, x)

    if mode != "eager":
        compute = tf.function(compute, jit_compile=mode == "xla")
    losses, gradient = compute(tf.constant(s))
    return losses.numpy(), gradient.numpy()


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("mode", "dtype", "setting"), diagonal(MODES, [np.float64, np.float32], PAPER)
)
def test_value_and_gradient_are_the_papers(mode, dtype, setting):
    margin, gamma = setting
    s, positives, negatives = random_pairs(0, dtype=dtype)
    losses, gradient = value_and_gradient(
        s, positives, negatives, mode=mode, margin=margin, gamma=gamma
    )
    expected_losses, expected_gradient = reference.circle_loss(
        s, positives, negatives, margin=margin, gamma=gamma
    )
    assert relative_error(losses, expected_losses) <= TOLERANCE[dtype]
    for row, expected in zip(gradient[3:], expected_gradient[3:], strict=True):
        assert relative_error(row, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("low,high", [(-1, -0.5), (-0.3, 0.3), (0.9, 1.0), (0.999, 1.0001)])
def test_float32_gradient_is_right_where_similarities_crowd(low, high):
    s, positives, negatives = random_pairs(1, low=low, high=high, dtype=np.float32)
    _, gradient = value_and_gradient(s, positives, negatives, margin=0.25, gamma=256.0)
    _, expected = reference.circle_loss(s, positives, negatives, margin=0.25, gamma=256.0)
    for row, expected_row in zip(gradient, expected, strict=True):
        np.testing.assert_allclose(
            row, expected_row, rtol=1e-4, atol=1e-5 * np.abs(expected_row).max()
        )


def test_anchors_without_both_kinds_of_pair_have_no_loss_and_no_gradient():
    s, positives, negatives = random_pairs(2)
    losses, gradient = value_and_gradient(s, positives, negatives, margin=0.25, gamma=256.0)
    assert (losses[:3] == 0).all() and (losses[3:] > 0).all()
    assert (gradient[:3] == 0).all() and np.isfinite(gradient).all()


def test_a_pair_in_neither_mask_has_no_gradient_and_no_say():
    s, positives, negatives = random_pairs(3)
    neither = ~positives & ~negatives
    losses, gradient = value_and_gradient(s, positives, negatives, margin=0.25, gamma=64.0)
    other, _ = value_and_gradient(
        np.where(neither, 0.123, s), positives, negatives, margin=0.25, gamma=64.0
    )
    assert (gradient[neither] == 0).all()
    np.testing.assert_array_equal(losses, other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.floats(-0.5, 0.8), st.floats(1, 512))
def test_signs_and_permutation(seed, margin, gamma):
    s, positives, negatives = random_pairs(seed, anchors=5, keys=8)
    losses, gradient = value_and_gradient(s, positives, negatives, margin=margin, gamma=gamma)
    assert (losses >= 0).all()
    assert (gradient[positives] <= 0).all() and (gradient[negatives] >= 0).all()
    order = np.random.default_rng(seed).permutation(8)
    shuffled, _ = value_and_gradient(
        s[:, order], positives[:, order], negatives[:, order], margin=margin, gamma=gamma
    )
    np.testing.assert_allclose(losses, shuffled, rtol=1e-12, atol=1e-300)


def test_gradient_keeps_pulling_positives_near_one_and_spares_far_negatives():
    s = np.array([[0.99, -0.5, -0.1]])
    positives, negatives = s > 0.9, s < 0
    _, gradient = value_and_gradient(s, positives, negatives, margin=0.25, gamma=8.0)
    assert gradient[0, 0] < 0  # weight 1 + m - s is not 0 at s = 1
    assert gradient[0, 1] == 0  # s < -m: weight 0
    assert gradient[0, 2] > 0  # -m < s < 0: pushed away, never pulled


@stacks.needs_keras_circle
def test_undetached_weights_give_the_number_and_gradient_of_keras():
    rng = np.random.default_rng(4)
    z = rng.normal(size=(16, 8)).astype(np.float32)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    ids = rng.integers(0, 4, 16)
    same = ids[:, None] == ids[None, :]
    positives, negatives = same & ~np.eye(16, dtype=bool), ~same

    def gradient_of(loss_of):
        x = tf.constant(z)
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = loss_of(x)
        return losses.numpy(), tape.gradient(losses, x).numpy()

    keras_loss = keras.losses.Circle(gamma=80.0, margin=0.4, reduction="none")
    options = {"margin": 0.4, "gamma": 80.0}
    theirs = gradient_of(lambda x: keras_loss(ids, x))

    def ours(detach_weights):
        return gradient_of(
            lambda x: circle.circle_loss(
                x @ tf.transpose(x), positives, negatives, detach_weights=detach_weights, **options
            )
        )

    np.testing.assert_allclose(ours(False)[0], theirs[0], rtol=1e-5)
    # Keras normalises inside: compare tangential parts (z is already unit).
    tangent = ours(False)[1]
    tangent -= z * (z * tangent).sum(1, keepdims=True)
    theirs_tangent = theirs[1] - z * (z * theirs[1]).sum(1, keepdims=True)
    np.testing.assert_allclose(tangent, theirs_tangent, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(ours(True)[0], theirs[0], rtol=1e-5)
    assert np.abs(ours(True)[1] - theirs[1]).max() > 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("detach_weights", [True, False])
def test_nan_and_inf_in_a_pair_are_visible(bad, mode, detach_weights):
    s, positives, negatives = random_pairs(5)
    s[4, np.flatnonzero(negatives[4])[0]] = bad
    s[5, np.flatnonzero(positives[5])[0]] = bad
    losses, gradient = value_and_gradient(
        s,
        positives,
        negatives,
        mode=mode,
        margin=0.25,
        gamma=64.0,
        detach_weights=detach_weights,
    )
    assert not np.isfinite(gradient[4]).all() or not np.isfinite(losses[4])
    assert not np.isfinite(gradient[5]).all() or not np.isfinite(losses[5])
    assert np.isfinite(losses[6:]).all() and np.isfinite(gradient[6:]).all()


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_similarities_are_computed_in_float32(dtype):
    s, positives, negatives = random_pairs(6)
    s = tf.cast(s, dtype)
    losses = circle.circle_loss(s, positives, negatives, margin=0.25, gamma=256.0)
    expected, _ = reference.circle_loss(
        tf.cast(s, tf.float64).numpy(), positives, negatives, margin=0.25, gamma=256.0
    )
    assert losses.dtype == tf.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_large_gamma_neither_overflows_nor_loses_the_hardest_pair():
    s = np.array([[1.0, -1.0]], np.float32)
    losses, gradient = value_and_gradient(s, s < 0, s > 0, margin=0.25, gamma=1e5)
    expected, expected_gradient = reference.circle_loss(s, s < 0, s > 0, margin=0.25, gamma=1e5)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gamma": 0, "margin": 0.25}, ValueError, "gamma must be .* above 0 .* found 0"),
        ({"gamma": -1.0, "margin": 0.25}, ValueError, "found -1.0"),
        ({"gamma": float("nan"), "margin": 0.25}, ValueError, "found nan"),
        ({"gamma": float("inf"), "margin": 0.25}, ValueError, "found inf"),
        ({"gamma": 80, "margin": 1.5}, ValueError, "margin must be in -1..1 .* found 1.5"),
        ({"gamma": 80, "margin": float("nan")}, ValueError, "found nan"),
        ({"gamma": "80", "margin": 0.25}, TypeError, "gamma must be a Python number; found '80'"),
        ({"gamma": 80, "margin": None}, TypeError, "margin must be a Python number; found None"),
    ],
)
def test_bad_hyperparameters(options, error, message):
    s, positives, negatives = random_pairs(7)
    with pytest.raises(error, match=message):
        circle.circle_loss(s, positives, negatives, **options)


def test_bad_shapes():
    s, positives, negatives = random_pairs(8)
    with pytest.raises(
        ValueError, match=r"one shape \[anchors, keys\]; found .*\(12, 40\).*\(40, 12\)"
    ):
        circle.circle_loss(s, positives.T, negatives, margin=0.25, gamma=80.0)
    with pytest.raises(ValueError, match="one shape"):
        circle.circle_loss(s[0], positives[0], negatives[0], margin=0.25, gamma=80.0)
