import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf.optimizers import extension, rate_factors, row_updates
from tests import stacks
from tests.small_models import mirrored

pytestmark = stacks.needs_keras_3

RATE = rate_factors.Rate
GRADIENTS = [np.array([0.5, -0.2, 3.0]), np.array([0.1, 0.4, -1.0]), np.array([-0.3, 0.2, 0.5])]
START = np.array([1.0, -2.0, 0.5])


def adamw(value, gradients, *, rate, decay, momentum=0.9, spread=0.999):
    """Loshchilov and Hutter's algorithm 2, in float64; bias is corrected from 1 on."""
    m = v = np.zeros(3)
    for step, gradient in enumerate(gradients, 1):
        value = value - rate * decay * value
        m = momentum * m + (1 - momentum) * gradient
        v = spread * v + (1 - spread) * gradient**2
        corrected = m / (1 - momentum**step), v / (1 - spread**step)
        value = value - rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-7)
    return value


def sgd(value, gradients, *, rate, decay, momentum=0.9):
    velocity = np.zeros(3)
    for gradient in gradients:
        value = value - rate * decay * value
        velocity = momentum * velocity - rate * gradient
        value = value + velocity
    return value


MAKERS = {
    "adamw": (functools.partial(keras.optimizers.AdamW, 0.1, weight_decay=0.3), adamw),
    "sgd": (functools.partial(keras.optimizers.SGD, 0.1, momentum=0.9, weight_decay=0.3), sgd),
}


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=stacks.needs_own_steps)])
@pytest.mark.parametrize("name", MAKERS)
def test_updates_and_decay_are_those_of_each_variables_rate(name, replicas):
    make, expected = MAKERS[name]
    with mirrored(replicas).scope():
        one, other, late = (keras.Variable(START) for _ in range(3))
        given = make()
        optimizer = rate_factors.with_rates(given, [(other, RATE(0.25)), (late, RATE(0.5, 1))])
        optimizer.build([one, other, late])

    @tf.function
    def step(gradient, first):
        variables = [one, other] if first else [one, other, late]

        def update():
            part = tf.cast(gradient, tf.float32) / replicas  # Which Keras sums over replicas.
            optimizer.apply([part] * len(variables), variables)

        mirrored(replicas).run(update)

    for number, gradient in enumerate(GRADIENTS):
        step(gradient, number == 0)
    settings = {"gradients": GRADIENTS, "decay": 0.3}
    np.testing.assert_allclose(one, expected(START, rate=0.1, **settings), rtol=1e-5)
    np.testing.assert_allclose(other, expected(START, rate=0.025, **settings), rtol=1e-5)
    settings["gradients"] = GRADIENTS[1:]
    np.testing.assert_allclose(late, expected(START, rate=0.05, **settings), rtol=2e-5)
    assert int(given.iterations.numpy()) == 3


def test_a_schedule_is_followed_by_the_iterations_of_all():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1.0, 0.1])
    variable = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(schedule)
    optimizer = rate_factors.with_rates(optimizer, [(variable, RATE(0.5, 1))])
    for _ in range(3):
        optimizer.apply([tf.constant([1.0])], [variable])
    assert float(variable.numpy()[0]) == pytest.approx(-0.5 * (1 + 1 + 0.1))


def test_of_a_loss_scale_optimizer_the_inner_one_has_rates():
    variable = keras.Variable([0.0])
    given = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=4.0)
    optimizer = rate_factors.with_rates(given, [(variable, RATE(0.5))])
    optimizer.apply([tf.constant([4.0])], [variable])
    assert float(variable.numpy()[0]) == -0.5


def test_rates_of_several_owners_multiply_until_one_gives_others():
    variable, other = keras.Variable([0.0]), keras.Variable([0.0])
    given = keras.optimizers.SGD(1.0)
    optimizer = rate_factors.with_rates(given, [(variable, RATE(0.5))], owner="one")
    of_both = [(variable, RATE(0.5)), (other, RATE(4.0))]
    optimizer = rate_factors.with_rates(optimizer, of_both, owner="two")
    gradients = [tf.constant([1.0])] * 2
    optimizer.apply(gradients, [variable, other])
    assert [float(v.numpy()[0]) for v in (variable, other)] == [-0.25, -4.0]
    optimizer = rate_factors.with_rates(optimizer, [(other, RATE(2.0))], owner="two")
    optimizer.apply(gradients, [variable, other])
    assert [float(v.numpy()[0]) for v in (variable, other)] == [-0.75, -6.0]
    optimizer = rate_factors.with_rates(extension.plain(optimizer), [], owner="three")
    optimizer.apply(gradients, [variable, other])
    assert [float(v.numpy()[0]) for v in (variable, other)] == [-1.75, -7.0]


@pytest.mark.parametrize("rows_first", [True, False])
def test_updates_by_rows_have_the_factor_once(rows_first):
    variable = keras.Variable(np.zeros([3, 1], np.float32))
    optimizer = keras.optimizers.SGD(1.0)
    for rows in (rows_first, not rows_first):
        if rows:
            optimizer = row_updates.update_rows_only(optimizer, [variable])
        else:
            optimizer = rate_factors.with_rates(optimizer, [(variable, RATE(4.0))])
    slices = tf.IndexedSlices(tf.constant([[0.5]]), tf.constant([1]), tf.constant([3, 1]))
    optimizer.apply([slices], [variable])
    assert variable.numpy()[:, 0].tolist() == [0, -2, 0]


def test_averages_take_the_place_of_their_own_weights_while_some_are_frozen():
    frozen, trained = keras.Variable([8.0]), keras.Variable([1.0])
    given = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5)
    optimizer = rate_factors.with_rates(given, [(frozen, RATE(1.0, 9))])
    optimizer.build([frozen, trained])
    for _ in range(2):
        optimizer.apply([tf.constant([0.5])], [trained])
    optimizer.finalize_variable_values([trained])  # As Keras does, with what trains at present.
    assert [float(v.numpy()[0]) for v in (frozen, trained)] == [8, 0.25]


def test_what_is_saved_is_of_the_plain_class():
    optimizer = rate_factors.with_rates(keras.optimizers.Adam(), [])
    config = keras.saving.serialize_keras_object(optimizer)
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is keras.optimizers.Adam
    assert type(extension.plain(optimizer)) is keras.optimizers.Adam
