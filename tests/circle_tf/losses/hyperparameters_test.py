"""Margins and gammas that change: at each step what a float of that value gives."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import baselines, schedules
from circle_tf.losses import hyperparameters
from tests import stacks

VALUES = {  # Each hyper-parameter before the second update, and from it on.
    "gamma": (4.0, 24.0),
    "alpha": (1.0, 3.0),
    "beta": (4.0, 24.0),
    "margin": (0.15, 0.3),
    "base": (0.4, 0.6),
}
LOSSES = [
    circle_tf.ClassCircleLoss,
    baselines.AMSoftmaxLoss,
    baselines.ArcFaceLoss,
    baselines.ContrastiveLoss,
    baselines.LiftedStructureLoss,
    baselines.MultiSimilarityLoss,
    baselines.NPairsLoss,
    baselines.NormFaceLoss,
    baselines.ProxyAnchorLoss,
    baselines.TripletLoss,
    baselines.UnifiedLoss,
]


def rows_and_ids(dtype=np.float32):
    rows = np.random.default_rng(0).normal(size=(12, 4))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype), np.arange(12) % 4


def steps_up(name):
    low, high = VALUES[name]
    return lambda step: tf.where(step < 2, low, high)


def value_and_gradient(loss, ids, rows):
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = loss(ids, rows)
    return value, tape.gradient(value, rows)


def hold_follows(make, names, dtype=np.float32, **ours):
    """One traced function gives what floats give, at each number of updates."""
    rows, ids = rows_and_ids(dtype)
    rows, optimizer = tf.constant(rows), keras.optimizers.SGD()
    loss = make(**{name: steps_up(name) for name in names}, **ours).follow(optimizer)
    traced = tf.function(lambda: value_and_gradient(loss, ids, rows))
    for step, place in ((0, 0), (2, 1), (1, 0)):
        optimizer.iterations.assign(step)
        plain = make(**{name: VALUES[name][place] for name in names})
        for one, other in zip(traced(), value_and_gradient(plain, ids, rows), strict=True):
            assert one.dtype == dtype
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    assert traced.experimental_get_tracing_count() == 1
    assert set(loss.scheduled()) == set(names)


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)
def test_a_loss_follows_its_schedules(make):
    names = [name for name in make._RANGES if name in VALUES]
    assert names == [*make._RANGES]
    hold_follows(make, names)


@pytest.mark.parametrize("ours", [{}, {"block_size": 5}], ids=["whole", "tiles"])
def test_so_does_circle_loss_in_float64(ours):
    def make(*, block_size=None, **given):
        return circle_tf.CircleLoss(block_size=block_size, **given)

    hold_follows(make, ["margin", "gamma"], np.float64, **ours)


@pytest.mark.parametrize("kind", [tf.Variable, pytest.param("keras", marks=stacks.needs_keras_3)])
def test_a_variable_is_read_at_each_step_and_gets_no_gradient(kind):
    rows, ids = map(tf.constant, rows_and_ids())
    gamma = (keras.Variable if kind == "keras" else kind)(4.0)
    loss = circle_tf.CircleLoss(gamma=gamma, block_size=None)

    @tf.function
    def value():
        with tf.GradientTape() as tape:
            found = loss(ids, rows)
        return found, tape.gradient(found, loss.gamma)

    for number in (4.0, 24.0):
        gamma.assign(number)
        found, gradient = value()
        assert gradient is None
        plain = circle_tf.CircleLoss(gamma=number, block_size=None)
        np.testing.assert_allclose(found, plain(ids, rows), rtol=1e-5)
    assert circle_tf.CircleLoss.from_config(loss.get_config()).gamma == 24.0


def test_no_gradient_flows_to_tensors_given_to_the_function():
    similarities, gamma = tf.constant([[0.8, 0.3]]), tf.constant(32.0)
    with tf.GradientTape() as tape:
        tape.watch(gamma)
        positives = tf.constant([[True, False]])
        loss = circle_tf.circle_loss(similarities, positives, ~positives, margin=0.25, gamma=gamma)
    assert tape.gradient(loss, gamma) is None
    plain = circle_tf.circle_loss(similarities, positives, ~positives, margin=0.25, gamma=32.0)
    np.testing.assert_allclose(loss, plain, rtol=1e-6)


@keras.saving.register_keras_serializable("tests")
def halved(step):
    return 1.0 / (1.0 + tf.cast(step, tf.float32))


@pytest.mark.parametrize("schedule", [schedules.GeometricGrowth(8.0, 32.0, steps=4), halved])
def test_schedules_are_saved_and_loaded(schedule):
    loss = keras.losses.deserialize(keras.losses.serialize(circle_tf.CircleLoss(gamma=schedule)))
    optimizer = keras.optimizers.SGD()
    optimizer.iterations.assign(2)
    assert float(loss.follow(optimizer).current().gamma) == pytest.approx(float(schedule(2)))
    layer = circle_tf.PairwiseCircle(gamma=schedule)
    assert (
        circle_tf.PairwiseCircle.from_config(layer.get_config()).get_config()["gamma"]
        == (layer.get_config()["gamma"])
    )


def test_a_schedule_that_nobody_has_told_whose_updates_it_counts():
    loss = circle_tf.CircleLoss(gamma=halved)
    with pytest.raises(RuntimeError, match=r"gamma of CircleLoss is a schedule.*follow\(optimizer"):
        loss([0, 0], tf.eye(2))
    with pytest.raises(TypeError, match="the optimizer that trains, .* found 'adam'"):
        loss.follow("adam")


def test_a_schedule_that_leaves_the_range():
    rows, ids = rows_and_ids()
    optimizer = keras.optimizers.SGD()
    rising = lambda step: 0.5 + tf.cast(step, tf.float32)  # noqa: E731
    loss = circle_tf.CircleLoss(margin=rising, block_size=None)
    loss.follow(optimizer)
    optimizer.iterations.assign(1)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"margin must be in -1..1.*1.5"):
        loss(ids, rows)
    under_xla = tf.function(lambda: loss(ids, rows), jit_compile=True)
    assert np.isnan(under_xla())  # XLA drops the check.


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda step: 0.0 * tf.cast(step, tf.float32), ValueError, "its schedule begins with 0"),
        (lambda step: tf.ones([2]), ValueError, r"one number; its schedule gives \(2,\)"),
        (lambda: tf.Variable([1.0, 2.0]), ValueError, r"one number; found a variable of \(2,\)"),
        ("80", TypeError, "gamma must be a Python number; found '80'"),
        (True, TypeError, "gamma must be a Python number; found True"),
    ],
)
def test_refuses_what_is_no_gamma(given, error, message):
    given = given() if "variable" in message else given
    with pytest.raises(error, match=message):
        circle_tf.CircleLoss(gamma=given)


def test_refuses_tensors_that_are_no_scalars():
    with pytest.raises(ValueError, match=r"gamma must be one number; found a tensor of shape"):
        circle_tf.circle_loss(
            [[0.0]], [[True]], [[True]], margin=0.25, gamma=tf.constant([1.0, 2.0])
        )


def test_values_of_a_model_go_by_their_owner_where_two_have_one_name():
    model = keras.Sequential([circle_tf.UnitEmbedding(2)])
    model.compile(loss=circle_tf.CircleLoss(margin=tf.Variable(0.25)))
    assert hyperparameters.scheduled_values(model) == {"margin": 0.25}
    model.add(circle_tf.PairwiseCircle(margin=tf.Variable(0.5), name="layer"))
    found = hyperparameters.scheduled_values(model)
    assert found == {"circle_loss_margin": 0.25, "layer_margin": 0.5}
