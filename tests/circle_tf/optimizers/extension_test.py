"""Optimizers with methods overridden: on the state of the given one, which stays as it is."""

import keras
import pytest
import tensorflow as tf

from circle_tf.optimizers import extension
from tests import stacks

pytestmark = stacks.needs_keras_3


class Halved:
    """Halves what is applied."""

    def update_step(self, gradient, variable, learning_rate):
        """As Keras'."""
        super().update_step(gradient / 2, variable, learning_rate)


class Negated:
    """Turns around what is applied."""

    def update_step(self, gradient, variable, learning_rate):
        """As Keras'."""
        super().update_step(-gradient, variable, learning_rate)


@keras.saving.register_keras_serializable("tests")
class Own(keras.optimizers.SGD):
    """An optimizer that Keras does not have."""


def scaled(inner):
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0)


def applied(optimizer, *, count=1):
    variable = keras.Variable([1.0])
    for _ in range(count):
        optimizer.apply([tf.constant([0.5])], [variable])
    return float(variable.numpy()[0])


@pytest.mark.parametrize("wrap", [lambda inner: inner, scaled], ids=["alone", "scaled"])
def test_mixins_override_one_after_the_other_and_the_given_one_stays(wrap):
    given = wrap(keras.optimizers.SGD(1.0))
    of_class, own = type(given), set(vars(given))
    halved = extension.extended(given, Halved)
    both = extension.extended(halved, Negated)
    assert extension.extended(both, Halved) is both
    assert applied(both) == 1.25
    assert type(given) is of_class and type(both).__name__ == of_class.__name__
    assert isinstance(both, of_class) and isinstance(extension.inner_optimizer(both), Halved)
    assert not any(callable(vars(given)[name]) for name in set(vars(given)) - own)
    assert applied(extension.plain(wrap(keras.optimizers.SGD(1.0)))) == 0.5
    assert applied(extension.extended(wrap(keras.optimizers.SGD(1.0)), Halved)) == 0.75


@pytest.mark.parametrize("wrap", [lambda inner: inner, scaled], ids=["alone", "scaled"])
def test_the_state_is_one(wrap):
    given = wrap(keras.optimizers.SGD(1.0, momentum=0.5))
    halved = extension.extended(given, Halved)
    assert applied(halved, count=2) == 1 - 0.25 - 0.375
    assert given.built and int(extension.inner_optimizer(given).iterations.numpy()) == 2
    assert [id(v) for v in given.variables] == [id(v) for v in halved.variables]
    given.learning_rate = 0.25
    assert float(tf.convert_to_tensor(halved.learning_rate)) == 0.25
    halved.learning_rate.assign(0.125)
    assert float(tf.convert_to_tensor(given.learning_rate)) == 0.125


@pytest.mark.parametrize("make", [keras.optimizers.Adam, Own, lambda: scaled(Own())])
def test_copies_and_what_is_saved_are_of_the_plain_class(make):
    given = make()
    halved = extension.extended(given, Halved)
    assert type(extension.plain(halved)) is type(given)
    assert vars(extension.plain(halved)) is vars(given)
    assert type(type(halved).from_config(halved.get_config())) is type(given)
    saved = keras.saving.serialize_keras_object(extension.plain(halved))
    assert type(keras.saving.deserialize_keras_object(saved)) is type(given)


def test_what_is_no_extended_optimizer_is_plain_already():
    optimizer = keras.optimizers.Adam()
    for value in (optimizer, "adam", None):
        assert extension.plain(value) is value
