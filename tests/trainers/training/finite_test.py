"""What is NaN or inf is found, on one device and on replicas, and explained."""

import types

import keras
import numpy as np
import pytest

import circle_tf
from configs import digits
from tests import strategies
from trainers.cli import commands
from trainers.training import finite


def model(*, optimizer=None, **options):
    inputs = keras.Input((6,))
    hidden = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(5, name="d")(inputs))
    built = circle_tf.EmbeddingModel(inputs, circle_tf.UnitEmbedding(4)(hidden))
    built.compile(optimizer or keras.optimizers.Adam(), circle_tf.CircleLoss(), **options)
    built.optimizer.build(built.trainable_variables)
    built.make_train_function()
    return built


def poisoned(variable, value):
    array = np.array(keras.ops.convert_to_numpy(variable))
    array.flat[-1] = value
    variable.assign(array)


def test_a_finite_state_passes():
    finite.StateCheck(model())(step=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("part", "name"),
    [
        (lambda net: net.get_layer("d").kernel, "d/kernel"),
        (lambda net: net.get_layer("norm").moving_variance, "norm/moving_variance"),
        (lambda net: net.optimizer.variables[-1], "adam.*velocity"),
    ],
)
def test_what_is_not_finite_is_named(part, name, value):
    net = model()
    poisoned(part(net), value)
    with pytest.raises(finite.NotFinite, match=f"{name}.* after step 7: .* diverged"):
        finite.StateCheck(net)(step=7)


def test_replicas_find_it_as_one_device_does():
    with strategies.mirrored().scope():
        net = model()
    check = finite.StateCheck(net)
    check(step=1)
    poisoned(net.get_layer("d").kernel, np.nan)
    with pytest.raises(finite.NotFinite, match="d/kernel"):
        check(step=2)


def test_a_row_of_one_replica_s_shard_is_found():
    inputs, ids = keras.Input((6,)), keras.Input((), dtype="int64")
    with strategies.mirrored().scope():
        head = circle_tf.CircleHead(5, as_model_loss=True, shards="replicas", name="classes")
        outputs = head((circle_tf.UnitEmbedding(4)(inputs), ids))
        net = circle_tf.EmbeddingModel([inputs, ids], outputs)
        net.compile("sgd")
        net.optimizer.build(net.trainable_variables)
    check = finite.StateCheck(net)
    check(step=1)
    weights = np.ones([5, 4], np.float32)
    weights[4, 0] = np.nan
    head.trainable_weights[0].assign(weights)
    with pytest.raises(finite.NotFinite, match="classes/"):
        check(step=2)


def test_sums_that_loss_scaling_will_skip_are_no_failure():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    for optimizer, fails in ((scaled, False), (keras.optimizers.SGD(0.1), True)):
        net = model(optimizer=optimizer, gradient_accumulation=2)
        poisoned(net.accumulator.sums[0], np.inf)
        if fails:
            with pytest.raises(finite.NotFinite, match="sum"):
                finite.StateCheck(net)(step=1)
        else:
            finite.StateCheck(net)(step=1)


@pytest.mark.parametrize(
    ("precision", "saved", "words"),
    [
        ("float32", 4, ["learning_rate=0.001 is too high", "Step 4 is saved and good"]),
        ("mixed_float16", 0, ["float16's 65,504", "mixed_bfloat16", "Nothing was saved"]),
    ],
)
def test_a_divergence_is_one_line_with_causes_and_what_to_do(precision, saved, words):
    config = digits.get_config()
    config.optimizer.learning_rate, config.precision = 1e-3, precision
    checkpoints = types.SimpleNamespace(step=saved)
    with pytest.raises(commands.ConfigError) as caught:
        with finite.explained(config, checkpoints=checkpoints, advice=["The loss has risen."]):
            finite.check_loss(float("nan"), step=5)
    message = str(caught.value)
    assert "\n" not in message and "The loss has risen." in message
    for word in ["The loss is nan after step 5", "other values want another --workdir", *words]:
        assert word in message
