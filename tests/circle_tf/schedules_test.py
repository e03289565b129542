"""Growth by the same factor at each update."""

import keras
import numpy as np
import pytest

from circle_tf import schedules
from tests import stacks


def test_grows_by_the_same_factor_and_stays():
    grown = [float(schedules.GeometricGrowth(16.0, 80.0, steps=4)(step)) for step in range(7)]
    np.testing.assert_allclose(grown[:5], 16.0 * 5 ** (np.arange(5) / 4), rtol=1e-6)
    assert grown[4:] == [80.0] * 3


def test_falls_where_the_end_is_lower():
    assert float(schedules.GeometricGrowth(4.0, 1.0, steps=2)(1)) == pytest.approx(2.0)


@stacks.needs_keras_3  # The rate of Keras 2 is a variable that each update sets.
def test_is_a_learning_rate_schedule_too():
    optimizer = keras.optimizers.SGD(schedules.GeometricGrowth(1e-3, 1e-1, steps=2))
    optimizer.iterations.assign(1)
    assert float(optimizer.learning_rate) == pytest.approx(1e-2)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert float(again.learning_rate) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0.0, 1.0, 1), "start must be a finite number above 0; found 0.0"),
        ((1.0, float("inf"), 1), "end must be a finite number above 0; found inf"),
        ((1.0, 2.0, 0), "steps must be a whole number of 1 or more; found 0"),
    ],
)
def test_refuses_what_cannot_grow(options, message):
    with pytest.raises(ValueError, match=message):
        schedules.GeometricGrowth(*options)
