import keras
import numpy as np
import pytest

from configs import base
from trainers.cli import commands
from trainers.training import optimizers


def config(**changes):
    section = base.get_config().optimizer
    section.update(changes)
    return section


def rates(section, *, steps, at):
    schedule = optimizers.schedule(section, steps=steps)
    return [float(schedule(step)) for step in at] if callable(schedule) else schedule


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adam", keras.optimizers.Adam),
        ("adamw", keras.optimizers.Adam),
        ("sgd", keras.optimizers.SGD),
    ],
)
def test_names(name, kind):
    assert type(optimizers.build(config(name=name), steps=10)) is kind


def test_momentum_is_sgd_s():
    assert optimizers.build(config(name="sgd", momentum=0.5), steps=10).momentum == 0.5


def test_cosine_falls_to_the_final_rate():
    section = config(learning_rate=0.1, final_learning_rate=0.02)
    found = rates(section, steps=100, at=(0, 50, 100, 120))
    np.testing.assert_allclose(found, [0.1, 0.06, 0.02, 0.02], rtol=1e-5)


def test_warm_up_then_cosine():
    section = config(learning_rate=0.1, warmup_steps=20)
    found = rates(section, steps=100, at=(0, 10, 20, 60, 100))
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.05, 0], atol=1e-7)


def test_warm_up_then_constant():
    section = config(learning_rate=0.1, warmup_steps=20, schedule="constant")
    found = rates(section, steps=100, at=(0, 10, 20, 60, 100))
    np.testing.assert_allclose(found, [0, 0.05, 0.1, 0.1, 0.1], rtol=1e-6)


def test_constant():
    assert rates(config(learning_rate=0.1, schedule="constant"), steps=100, at=()) == 0.1


def step_of(section, *, weight, gradient, name="kernel"):
    """What one step does to a weight."""
    variable = keras.Variable(weight, name=name)
    optimizer = optimizers.build(section, steps=10)
    optimizer.apply_gradients([(keras.ops.convert_to_tensor(gradient), variable)])
    return variable.numpy() - weight


def test_clipnorm_limits_the_gradient():
    section = config(name="sgd", momentum=0.0, learning_rate=1.0, clipnorm=5.0)
    change = step_of(section, weight=np.zeros(2), gradient=[30.0, 40.0])
    np.testing.assert_allclose(change, [-3, -4], rtol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weight_decay_spares_scales_and_biases(name):
    section = config(name=name, learning_rate=0.1, weight_decay=0.5)
    assert step_of(section, weight=np.ones(1), gradient=[0.0]) == pytest.approx(-0.05)
    for spared in ("gamma", "beta", "bias"):
        assert step_of(section, weight=np.ones(1), gradient=[0.0], name=spared) == 0


def test_adamw_is_keras_s():
    section = config(name="adamw", learning_rate=0.1, weight_decay=0.5, schedule="constant")
    expected = keras.Variable(np.ones(3), name="kernel")
    gradient = keras.ops.convert_to_tensor([1.0, -2.0, 0.0])
    keras.optimizers.AdamW(0.1, weight_decay=0.5).apply_gradients([(gradient, expected)])
    found = step_of(section, weight=np.ones(3), gradient=[1.0, -2.0, 0.0])
    np.testing.assert_allclose(found, expected.numpy() - 1, rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_no_weight_decay_unless_asked_for(name):
    assert step_of(config(name=name), weight=np.ones(1), gradient=[0.0]) == 0


def test_steps_divide_the_rate_by_ten_after_50_70_and_90_percent():
    section = config(learning_rate=0.1, schedule="steps")
    found = rates(section, steps=100, at=(0, 50, 51, 70, 71, 90, 91, 100))
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "adma"}, "adam, adamw, sgd; found 'adma'"),
        ({"schedule": "linear"}, "cosine, constant or steps; found 'linear'"),
        ({"schedule": "steps", "warmup_steps": 2}, "steps has no warm-up"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"final_learning_rate": 1.0}, "between 0 and it"),
        ({"warmup_steps": 10}, "below the 10 steps"),
        ({"warmup_steps": -1}, "from 0"),
        ({"clipnorm": -1.0}, "must not be < 0"),
        ({"weight_decay": -1.0}, "must not be < 0"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(commands.ConfigError, match=message):
        optimizers.build(config(**changes), steps=10)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_weights_are_averaged_where_a_momentum_is_given(name):
    assert not optimizers.build(config(name=name), steps=10).use_ema
    found = optimizers.build(config(name=name, ema_momentum=0.9), steps=10)
    assert found.use_ema and found.ema_momentum == 0.9
