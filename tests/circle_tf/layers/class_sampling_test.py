"""The sample of classes: own classes always, no class twice, a function of seed and step."""

import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.layers import class_sampling
from tests import reference, stacks

IDS = np.array([3, 77, 3, 149], np.int64)
UNIT = reference.normalize(np.random.default_rng(0).normal(size=(4, 6))).astype(np.float32)


def sample(*, seed=0, step=0, size=37):
    return class_sampling.sampled_classes(tf.constant(IDS), 150, size=size, seed=seed, step=step)


def test_keeps_own_classes_and_no_class_counts_twice():
    for step in range(20):
        rows, live, first = (value.numpy() for value in sample(step=step))
        counted = rows[live]
        assert len(set(counted)) == len(counted) and set(counted) == set(rows)
        assert set(IDS) <= set(counted) and len(set(rows[4:])) == 37
        assert (rows[first[IDS]] == IDS).all()


def test_depends_on_seed_and_step_only_and_reaches_every_class():
    drawn = [sample(step=step)[0].numpy()[4:].tolist() for step in range(60)]
    assert drawn[7] == sample(step=7)[0].numpy()[4:].tolist()
    assert drawn[7] != drawn[8] and drawn[7] != sample(seed=1, step=7)[0].numpy()[4:].tolist()
    assert set(np.ravel(drawn)) == set(range(150))


def head_and_gradient(*, training, **options):
    head = circle_tf.CircleHead(150, gamma=32.0, **options)
    head.build(((4, 6), (4,)))
    start = np.random.default_rng(1).normal(size=(150, 6)).astype(np.float32)
    head.class_weights.assign(start)

    with tf.GradientTape() as tape:
        losses = head((UNIT, IDS), training=training)
    weights = stacks.tensors([head.class_weights])
    return start, losses.numpy(), tape.gradient(losses, weights)[0]


@pytest.mark.parametrize("max_bytes", [2**20, 64 * 4 * 4])
def test_sampled_losses_and_gradients_are_those_of_the_classes_drawn(max_bytes):
    start, losses, slices = head_and_gradient(training=True, sample_rate=0.8, max_bytes=max_bytes)
    assert isinstance(slices, tf.IndexedSlices)
    drawn = np.unique(sample(size=120)[0].numpy())
    classes = reference.normalize(start[drawn])
    places = np.searchsorted(drawn, IDS)
    expected, slopes = reference.class_level(UNIT @ classes.T, places, margin=0.25, gamma=32.0)
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
    gradient = np.zeros((150, 6))
    gradient[drawn] = reference.normalize_gradient(start[drawn], slopes.T @ UNIT)
    np.testing.assert_allclose(tf.convert_to_tensor(slices), gradient, rtol=1e-3, atol=1e-3)


def test_rate_one_is_the_dense_head_and_evaluation_sees_all_classes():
    dense = head_and_gradient(training=True)
    whole = head_and_gradient(training=True, sample_rate=1.0)
    np.testing.assert_array_equal(whole[1], dense[1])
    np.testing.assert_array_equal(whole[2], dense[2])
    np.testing.assert_array_equal(head_and_gradient(training=False, sample_rate=0.1)[1], dense[1])


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, True, "all", float("nan")])
def test_refuses_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="sample_rate must be a number above 0, at most 1"):
        circle_tf.CircleHead(9, sample_rate=rate)


@pytest.mark.parametrize("jit", [False, True])
def test_each_training_step_draws_anew_also_in_a_graph_of_unknown_batch(jit):
    heads = [circle_tf.CircleHead(150, gamma=32.0, sample_rate=0.2) for _ in range(2)]
    for head in heads:
        head.build(((4, 6), (4,)))
    heads[1].set_weights(heads[0].get_weights())
    signature = [tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.int64)]
    if jit:
        signature = [tf.TensorSpec([4, 6]), tf.TensorSpec([4], tf.int64)]

    @tf.function(input_signature=signature, jit_compile=jit)
    def step(unit, ids):
        return heads[0]((unit, ids), training=True)

    found = [step(UNIT, IDS).numpy() for _ in range(3)]
    expected = [heads[1]((UNIT, IDS), training=True).numpy() for _ in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(found[0], found[1])
