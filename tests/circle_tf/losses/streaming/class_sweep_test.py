"""Class-level losses over blocks of classes: the reference's numbers, however they are cut."""

import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.losses.streaming import class_sweep
from tests import reference, stacks
from tests.combinations import diagonal

CLASSES, BATCH = 150, 12
OPTIONS = {"margin": 0.25, "gamma": 64.0}
HELD, STREAMED = 2**20, 64 * BATCH * 8


def inputs(dtype=np.float64):
    rng = np.random.default_rng(0)
    unit = reference.normalize(rng.normal(size=(BATCH, 6)))
    weights = rng.normal(size=(CLASSES, 6)) * rng.uniform(0.1, 9, (CLASSES, 1))
    # The first and the last class, both sides of a block's edge, and one class twice.
    ids = np.r_[0, CLASSES - 1, 63, 64, 64, rng.integers(0, CLASSES, BATCH - 5)]
    return unit.astype(dtype), weights.astype(dtype), ids, rng.normal(size=BATCH).astype(dtype)


def losses_and_gradients(unit, weights, ids, upstream, *, jit=None, **options):
    def step(unit, weights):
        with tf.GradientTape() as tape:
            tape.watch([unit, weights])
            losses = class_sweep.class_losses(unit, weights, tf.constant(ids), **OPTIONS, **options)
        return losses, *tape.gradient(losses, [unit, weights], output_gradients=upstream)

    if jit is not None:
        step = tf.function(step, jit_compile=jit)
    return [value.numpy() for value in step(tf.constant(unit), tf.constant(weights))]


def expected_of(unit, weights, ids, upstream):
    classes = reference.normalize(weights)
    losses, slopes = reference.class_level(unit @ classes.T, ids, **OPTIONS)
    slopes = upstream[:, None] * slopes
    of_weights = reference.normalize_gradient(weights, slopes.T @ unit)
    return losses, slopes @ classes, of_weights


@pytest.mark.parametrize(
    ("jit", "max_bytes"), diagonal([None, False, True], [HELD, STREAMED, 2 * STREAMED])
)
def test_equals_the_reference(jit, max_bytes):
    found = losses_and_gradients(*inputs(), jit=jit, max_bytes=max_bytes)
    for a, b in zip(found, expected_of(*inputs()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("jit", [False, True])
def test_some_blocks_are_held_and_others_computed_again(jit, monkeypatch):
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", STREAMED)
    blocks = class_sweep.Blocks.of_batch(tf.zeros([BATCH, 6], tf.float64), CLASSES, 2 * STREAMED)
    assert (blocks.size, blocks.cached) == (64, 1)  # Of three.
    found = losses_and_gradients(*inputs(), jit=jit, max_bytes=2 * STREAMED)
    for a, b in zip(found, expected_of(*inputs()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("max_bytes", [HELD, STREAMED])
def test_float32_is_close_to_the_reference(max_bytes):
    found = losses_and_gradients(*inputs(np.float32), max_bytes=max_bytes)
    for a, b in zip(found, expected_of(*inputs()), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_a_batch_of_unknown_size_is_streamed_with_the_same_numbers():
    unit, weights, ids, _ = inputs()

    @tf.function(input_signature=[tf.TensorSpec([None, 6], tf.float64)])
    def losses(unit):
        return class_sweep.class_losses(unit, tf.constant(weights), tf.constant(ids), **OPTIONS)

    np.testing.assert_allclose(losses(unit), expected_of(*inputs())[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("max_bytes", [HELD, STREAMED])
def test_whole_derivative_without_detached_weights(max_bytes):
    unit, weights, ids, upstream = inputs()
    options = {"detach_weights": False, "max_bytes": max_bytes}
    found = losses_and_gradients(unit, weights, ids, upstream, **options)[1:]
    turn = np.random.default_rng(1).normal(size=weights.shape)
    total = [
        upstream @ losses_and_gradients(unit, weights + h * turn, ids, upstream, **options)[0]
        for h in (1e-6, -1e-6)
    ]
    np.testing.assert_allclose(np.sum(found[1] * turn), (total[0] - total[1]) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_weights_of_any_length(scale):
    unit, weights, ids, upstream = inputs(np.float32)
    usual = losses_and_gradients(unit, weights, ids, upstream)
    found = losses_and_gradients(unit, weights * np.float32(scale), ids, upstream)
    np.testing.assert_allclose(found[0], usual[0], rtol=1e-4, atol=1e-5)
    scaled = found[2].astype(np.float64) * scale
    np.testing.assert_allclose(scaled, usual[2], rtol=1e-3, atol=1e-4 * np.abs(usual[2]).max())


def test_weights_of_zeros_get_no_gradient_and_nan_is_seen():
    unit, weights, ids, upstream = inputs()
    weights[5] = 0
    found = losses_and_gradients(unit, weights, ids, upstream)
    np.testing.assert_allclose(found[0], expected_of(unit, weights, ids, upstream)[0], rtol=1e-9)
    assert np.isfinite(found[2]).all() and not found[2][5].any()
    weights[5, 0] = np.nan
    assert np.isnan(losses_and_gradients(unit, weights, ids, upstream)[0]).all()


def test_refuses_a_second_derivative():
    unit, weights, ids, _ = (tf.constant(value) for value in inputs())
    with tf.GradientTape() as outer:
        outer.watch(unit)
        with tf.GradientTape() as inner:
            inner.watch(unit)
            losses = class_sweep.class_losses(unit, weights, ids, **OPTIONS)
        first = inner.gradient(losses, unit)
    with pytest.raises(NotImplementedError, match="second derivative of CircleHead"):
        outer.gradient(first, unit)


def test_refuses_a_budget_that_holds_no_block():
    unit, weights, ids, _ = inputs()
    with pytest.raises(ValueError, match=r"max_bytes=100 cannot hold .* give 6144 or more"):
        class_sweep.class_losses(unit, weights, ids, max_bytes=100, **OPTIONS)


@pytest.mark.parametrize("value", [0, -5, 1.5, True, "1G"])
def test_refuses_what_is_no_budget(value):
    with pytest.raises(ValueError, match="max_bytes must be a whole number of 1 or more"):
        circle_tf.CircleHead(9, max_bytes=value)


def test_the_head_gives_the_same_numbers_within_any_budget():
    unit, _, ids, _ = inputs(np.float32)
    heads = [circle_tf.CircleHead(CLASSES, **OPTIONS, max_bytes=n) for n in (HELD, STREAMED // 2)]
    found = []
    for head in heads:
        head.build(((BATCH, 6), (BATCH,)))
        head.set_weights(heads[0].get_weights())
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(head((unit, ids)))
        found.append([total, *tape.gradient(total, stacks.tensors([head.class_weights]))])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())
