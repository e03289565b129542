import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from trainers import checkpoints

IMAGES = np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32)
IDS = np.repeat(np.arange(4), 3)


def model(*, seed):
    """A model with every kind of state: moving statistics, seeds, moments, metrics."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    hidden = keras.layers.Dropout(0.5, seed=seed)(hidden)
    built = keras.Model(inputs, circle_tf.UnitEmbedding(4)(hidden))
    built.compile(
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01)),
        circle_tf.CircleLoss(),
        metrics=circle_tf.metrics.monitors(margin=0.25),
        jit_compile=False,
    )
    return built


def train(net, *, steps):
    data = tf.data.Dataset.from_tensors((IMAGES, IDS)).repeat(steps)
    net.fit(data, shuffle=False, verbose=0)


def state(net):
    variables = [*net.variables, *net.optimizer.variables, *net.metrics_variables]
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def results(net):
    return {name: float(value) for name, value in net.get_metrics_result().items()}


def test_everything_comes_back(tmp_path):
    first = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), first, keep=2)
    train(first, steps=3)
    saved.save(3)
    second = model(seed=1)
    restored = checkpoints.Checkpoints(str(tmp_path), second, keep=2)
    assert restored.restore() == 3
    for one, other in zip(state(first), state(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_state_includes_what_is_easily_forgotten(tmp_path):
    net = model(seed=0)
    checkpoints.Checkpoints(str(tmp_path), net, keep=1).save(1)
    names = [name for name, _ in tf.train.list_variables(tf.train.latest_checkpoint(tmp_path))]
    model_names = [name for name in names if name.startswith("model/")]
    optimizer_names = [name for name in names if name.startswith("optimizer/")]
    # Kernel, bias, 4 of batch norm, kernel, bias, seed of dropout.
    assert len(model_names) == 9
    # Loss scale and its counter besides the inner optimizer's step, rate and two moments of six.
    assert len(optimizer_names) >= 16
    assert any(name.startswith("metrics/") for name in names)


def test_training_goes_on_as_if_uninterrupted(tmp_path):
    whole = model(seed=0)
    checkpoints.Checkpoints(str(tmp_path / "whole"), whole, keep=1)
    train(whole, steps=5)
    part = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path / "part"), part, keep=1)
    train(part, steps=2)
    saved.save(2)
    rest = model(seed=7)
    checkpoints.Checkpoints(str(tmp_path / "part"), rest, keep=1).restore()
    train(rest, steps=3)
    for one, other in zip(whole.get_weights(), rest.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_metrics_are_restored_once_after_a_reset(tmp_path):
    net = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=1)
    train(net, steps=3)
    expected = results(net)
    saved.save(3)
    other = model(seed=1)
    restored = checkpoints.Checkpoints(str(tmp_path), other, keep=1)
    restored.restore()
    other.reset_metrics()
    restored.restore_metrics()
    assert results(other) == expected
    other.reset_metrics()
    restored.restore_metrics()
    assert results(other)["loss"] == 0


def test_nothing_to_restore(tmp_path):
    saved = checkpoints.Checkpoints(str(tmp_path / "none"), model(seed=0), keep=1)
    assert saved.restore() == 0
    saved.restore_metrics()


def test_the_newest_are_kept(tmp_path):
    saved = checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=2)
    for step in (5, 10, 15):
        saved.save(step)
    found = sorted(name for name in os.listdir(tmp_path) if name.endswith(".index"))
    assert found == ["ckpt-10.index", "ckpt-15.index"]


def test_another_model_s_checkpoint_is_refused(tmp_path):
    checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=1).save(1)
    inputs = keras.Input((6,))
    other = keras.Model(inputs, circle_tf.UnitEmbedding(4)(inputs))
    other.compile("sgd", circle_tf.CircleLoss())
    with pytest.raises((AssertionError, ValueError)):
        checkpoints.Checkpoints(str(tmp_path), other, keep=1).restore()
