import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests import disks, strategies
from trainers.cli import commands
from trainers.training import checkpoints, finite

IMAGES = np.random.default_rng(0).normal(size=[12, 6]).astype(np.float32)
IDS = np.repeat(np.arange(4), 3)


def model(*, seed, kind=keras.Model):
    """A model with every kind of state: moving statistics, seeds, moments, metrics."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((6,))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8)(inputs))
    hidden = keras.layers.Dropout(0.5, seed=seed)(hidden)
    built = kind(inputs, circle_tf.UnitEmbedding(4)(hidden))
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


def test_what_is_none_of_the_model_s_comes_back_too(tmp_path):
    other = tf.Variable([3, 4])
    checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=1, others=[other]).save(1)
    other.assign([0, 0])
    assert checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=1, others=[other]).restore()
    assert other.numpy().tolist() == [3, 4]


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


def damage(path, *, how):
    data = f"{path}.data-00000-of-00001"
    if how == "no index":  # as a kill between the two renames leaves it
        os.remove(f"{path}.index")
        return
    name = f"{path}.index" if "index" in how else data
    with open(name, "rb") as file:
        content = bytearray(file.read())
    if "flipped" in how:
        content[len(content) // 2] ^= 1
    else:
        del content[len(content) // 2 :]
    with open(name, "wb") as file:
        file.write(content)


@pytest.mark.parametrize(
    "how", ["flipped bit", "cut off", "index flipped bit", "index cut off", "no index"]
)
def test_damaged_checkpoints_are_passed_over(how, tmp_path):
    net = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=3)
    for step in (1, 2):
        train(net, steps=1)
        saved.save(step)
        if step == 1:
            expected = state(net)
    damage(str(tmp_path / "ckpt-2"), how=how)
    other = model(seed=1)
    restored = checkpoints.Checkpoints(str(tmp_path), other, keep=3)
    if how == "no index":
        assert restored.restore() == 1
    else:
        with pytest.warns(UserWarning, match="ckpt-2 is damaged .*ckpt-1 is used"):
            assert restored.restore() == 1
    for one, found in zip(expected, state(other), strict=True):
        np.testing.assert_array_equal(one, found)


def test_without_a_whole_checkpoint_training_starts_anew(tmp_path):
    checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=3).save(2)
    damage(str(tmp_path / "ckpt-2"), how="cut off")
    with pytest.warns(UserWarning, match="starts anew"):
        assert checkpoints.Checkpoints(str(tmp_path), model(seed=1), keep=3).restore() == 0


def poison(net):
    net.layers[1].kernel.assign(net.layers[1].kernel * np.nan)


def test_a_state_with_nan_is_not_written_over_a_good_one(tmp_path):
    net = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=1)
    saved.save(1)
    good = state(net)
    poison(net)
    with pytest.raises(finite.NotFinite, match="kernel .* after step 2"):
        saved.save(2)
    assert saved.step == 1
    other = model(seed=1)
    assert checkpoints.Checkpoints(str(tmp_path), other, keep=1).restore() == 1
    for one, found in zip(good, state(other), strict=True):
        np.testing.assert_array_equal(one, found)


def test_a_step_that_loss_scaling_skips_is_saved(tmp_path):
    net = model(seed=0)
    net.compile(net.optimizer, circle_tf.CircleLoss(gamma=1e6), jit_compile=False)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=1)
    net.optimizer.dynamic_scale.assign(3e38)  # Scaled gradients overflow.
    before = net.get_weights()[0]
    train(net, steps=1)
    np.testing.assert_array_equal(before, net.get_weights()[0])
    saved.save(1)
    assert saved.step == 1


def saved_with_nan(path, *, steps, good=()):
    """Checkpoints as they were written before they were looked at."""
    saved = checkpoints.Checkpoints(str(path), model(seed=0), keep=3)
    saved.check = lambda step: None
    for step in steps:
        if step not in good:
            poison(saved._model)
        saved.save(step)


def test_checkpoints_with_nan_are_passed_over(tmp_path):
    saved_with_nan(tmp_path, steps=(1, 2, 3), good=(1,))
    restored = checkpoints.Checkpoints(str(tmp_path), model(seed=1), keep=3)
    with pytest.warns(UserWarning, match="holds NaN or inf; .*ckpt-1 is used"):
        assert restored.restore() == 1


def test_a_run_of_checkpoints_with_nan_alone_is_told_of(tmp_path):
    saved_with_nan(tmp_path, steps=(1, 2))
    restored = checkpoints.Checkpoints(str(tmp_path), model(seed=1), keep=3)
    with pytest.raises(commands.ConfigError, match="diverged: .* Train anew in another --workdir"):
        restored.restore()


def test_a_checkpoint_that_was_damaged_is_written_again(tmp_path):
    net = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=2)
    for step in (1, 2, 3):
        saved.save(step)
    damage(str(tmp_path / "ckpt-3"), how="cut off")
    with pytest.warns(UserWarning, match="ckpt-3 is damaged"):
        assert saved.restore() == 2
    saved.save(3)
    assert saved.restore() == 3
    assert os.path.basename(tf.train.latest_checkpoint(tmp_path)) == "ckpt-3"


def test_what_a_kill_leaves_is_removed(tmp_path):
    os.makedirs(tmp_path / ".writing-abc")
    saved = checkpoints.Checkpoints(str(tmp_path), model(seed=0), keep=2)
    saved.restore()
    saved.save(1)
    assert sorted(os.listdir(tmp_path)) == [
        "checkpoint",
        "ckpt-1.data-00000-of-00001",
        "ckpt-1.index",
    ]


def test_other_workers_save_without_writing_here(tmp_path):
    path = str(tmp_path / "none")
    checkpoints.Checkpoints(path, model(seed=0), keep=2, write=False).save(1)
    assert not os.path.exists(path)


def test_replicas_restore_what_one_device_saved(tmp_path):
    one = model(seed=0)
    train(one, steps=2)
    checkpoints.Checkpoints(str(tmp_path), one, keep=1).save(2)
    strategy = strategies.mirrored()
    with strategy.scope():
        several = model(seed=1, kind=circle_tf.EmbeddingModel)
    restored = checkpoints.Checkpoints(str(tmp_path), several, keep=1)
    assert restored.restore() == 2
    restored.restore_metrics()
    for left, right in zip(state(one), state(several), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-6)


def test_a_full_disk_leaves_the_older_checkpoints(tmp_path):
    net = model(seed=0)
    saved = checkpoints.Checkpoints(str(tmp_path), net, keep=2)
    saved.save(1)
    names = sorted(os.listdir(tmp_path))
    with disks.full_beyond(1000), pytest.raises(OSError, match="written to: File too large. Make"):
        saved.save(2)
    assert sorted(os.listdir(tmp_path)) == names
    assert checkpoints.Checkpoints(str(tmp_path), model(seed=1), keep=2).restore() == 1
