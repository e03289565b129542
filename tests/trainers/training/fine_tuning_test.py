import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import backbones, fine_tuning, run_files
from configs import base, digits
from tests import stopped_runs
from tests.pictures import picture
from trainers.cli import commands
from trainers.outputs import artifacts
from trainers.outputs import workdir as workdirs
from trainers.training import fine_tuning as tuning
from trainers.training import loop

STILL = {"unfreeze_from": "1", "cache_features": True}


@pytest.fixture(scope="module", autouse=True)
def unrendered():
    """Figures are made and not rendered, a third of a run; loop_test.py looks at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "_write", lambda figures, **_: None)
        yield


def recipe(fine_tune, **changes):
    """A run of seconds without augmentation."""
    config = digits.get_config()
    config.deterministic = False
    config.steps, config.eval_every, config.checkpoint_every = 6, 3, 2
    config.eval_examples = 100
    config.augment.rotation = config.augment.translation = 0.0
    config.fine_tune.update(fine_tune)
    config.update(changes)
    return config


def pieces(folder):
    """The files of a cache, and when each was written."""
    found = [os.path.join(root, name) for root, _, names in os.walk(folder) for name in names]
    return {path: os.stat(path).st_mtime_ns for path in found if path.endswith(".tfrecord")}


def test_a_section_that_changes_nothing_is_no_schedule():
    backbone = backbones.build("conv4", (8, 8, 1))
    config = base.get_config().fine_tune
    assert tuning.build(config, backbone) is None
    config.update(freeze_steps=10, unfreeze_from="0.5", layer_decay=0.5)
    found = tuning.build(config, backbone)
    assert [block.learning_rate_factor for block in found.blocks] == [0, 0, 0.25, 0.5]
    assert tuning.describe(found) == (
        "Fine-tuning: the backbone is frozen for the first 10 updates, then trained in 2 of its 4 "
        "blocks, at 0.25 to 0.5 of the learning rate."
    )
    config.unfreeze_from = "1"
    assert tuning.describe(tuning.build(config, backbone)) == "Fine-tuning: the backbone is frozen."


def test_a_run_stopped_while_frozen_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, capsys):
    config = recipe({"freeze_steps": 3, "layer_decay": 0.5})
    whole = loop.train(config, workdir=str(tmp_path / "whole"))
    assert "frozen for the first 3 updates" in capsys.readouterr().out
    stopped_runs.killed_after(2, monkeypatch, config, str(tmp_path / "run"))
    rest = loop.train(config, workdir=str(tmp_path / "run"))
    for one, other in zip(stopped_runs.weights(whole), stopped_runs.weights(rest), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A finished run over cached features."""
    path = str(tmp_path_factory.mktemp("runs") / "cached")
    return loop.train(recipe(STILL), workdir=path)


def test_a_run_over_cached_features_is_that_over_images(cached, tmp_path):
    plain = loop.train(recipe({"unfreeze_from": "1"}), workdir=str(tmp_path / "plain"))
    models = [run_files.load_model(files.model) for files in (plain, cached)]
    assert [layer.name for layer in models[1].layers][-1] == "embedding"
    assert models[1].input_shape == (None, 8, 8, 1)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(models[0](images), models[1](images), atol=1e-3)
    found, expected = (workdirs.MetricsLog(files.metrics).records() for files in (cached, plain))
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=5e-3)
    assert run_files.load_model(cached.best).input_shape == (None, 8, 8, 1)


def test_a_stopped_run_goes_on_and_computes_no_feature_again(cached, tmp_path, monkeypatch):
    folder = os.path.join(cached.path, "features")
    config = recipe({**STILL, "cache_path": folder})
    before = pieces(folder)
    stopped_runs.killed_after(4, monkeypatch, config, str(tmp_path / "run"))
    rest = loop.train(config, workdir=str(tmp_path / "run"))
    assert before and pieces(folder) == before
    assert not os.path.exists(tmp_path / "run" / "features")
    for one, other in zip(stopped_runs.weights(cached), stopped_runs.weights(rest), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_run_does_not_go_on_over_another_backbone(tmp_path, monkeypatch):
    first = str(tmp_path / "backbone.keras")
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        backbones.build("conv4", (8, 8, 1)).save(first)
        config, path = recipe(STILL, steps=3), str(tmp_path / "run")
        config.model.weights = first
        if seed == 0:
            stopped_runs.killed_after(2, monkeypatch, config, path)
    with pytest.raises(commands.ConfigError, match="another backbone: its model.weights have"):
        loop.train(config, workdir=path)


def test_a_changed_photo_is_computed_anew_and_that_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(8):
        (tmp_path / "photos" / f"class{number}").mkdir(parents=True)
        for image in range(2):
            content = picture("png", size=(8, 8), seed=2 * number + image)
            (tmp_path / "photos" / f"class{number}" / f"{image}.png").write_bytes(content)
    config = recipe({**STILL, "cache_path": str(tmp_path / "features")}, steps=1)
    config.batch.classes_per_batch = config.batch.examples_per_class = 2
    config.dataset.update(name="folder", path=str(tmp_path / "photos"))
    counts = []
    for name in ("one", "two"):
        loop.train(config, workdir=str(tmp_path / name))
        counts.append(len(list(tf.data.TFRecordDataset(list(pieces(tmp_path / "features"))))))
        photo = tmp_path / "photos" / "class0" / "0.png"
        photo.write_bytes(picture("png", size=(8, 8), seed=99))
    assert counts == [16, 17]


# Slow: two trainings each. In a process of its own: a second strategy in one would number its
# collectives as the first did. Batches of BatchNormalization that trains are each replica's own.
@pytest.mark.slow
@pytest.mark.parametrize(
    "fine_tune",
    [STILL, {"freeze_steps": 3, "layer_decay": 0.5, "freeze_batch_normalization": True}],
)
def test_two_replicas_train_as_one_device(fine_tune, tmp_path):
    one = loop.train(recipe(fine_tune), workdir=str(tmp_path / "one"))
    config = recipe(fine_tune, strategy="mirrored", devices=2)
    fields = ("steps", "eval_every", "checkpoint_every", "eval_examples", "strategy", "devices")
    options = {name: config[name] for name in (*fields, "deterministic")}
    options |= {f"augment.{name}": 0.0 for name in ("rotation", "translation")}
    options |= {f"fine_tune.{name}": value for name, value in fine_tune.items()}
    command = [sys.executable, "-m", "trainers.train", "--config=configs/digits.py"]
    command += [f"--workdir={tmp_path / 'two'}"]
    command += [f"--config.{name}={value}" for name, value in options.items()]
    subprocess.run(command, check=True, timeout=600)
    two = workdirs.Workdir(str(tmp_path / "two"))
    for ours, theirs in zip(stopped_runs.weights(one), stopped_runs.weights(two), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fine_tune.unfreeze_from": "", "fine_tune.freeze_steps": 100},
            "must stay frozen for the whole run, and trains as a whole after step 100. Set "
            "fine_tune.unfreeze_from=1",
        ),
        ({"fine_tune.unfreeze_from": "conv2d_3"}, "and trains from 'conv2d_3' up after step 0"),
        (
            {"augment.flip": "horizontal", "augment.rotation": 5.0},
            "augmentation makes another image of it in each step: set augment.flip=, "
            "augment.rotation=0, or train without",
        ),
        ({"fine_tune.cache_features": False, "fine_tune.cache_path": "x"}, "leave it empty"),
    ],
)
def test_a_cache_that_would_be_wrong_is_refused_with_the_reason(changes, message):
    config = recipe(STILL)
    config.update_from_flattened_dict(changes)
    with pytest.raises(commands.ConfigError) as error:
        tuning.check_cache(config)
    assert message in str(error.value)


def test_no_such_block_is_told_in_a_line(tmp_path):
    config = recipe({"unfreeze_from": "block9"})
    with pytest.raises(commands.ConfigError, match="no block or layer 'block9'. Its blocks: "):
        loop.train(config, workdir=str(tmp_path))


def test_the_schedule_is_that_of_the_library():
    backbone = backbones.build("conv4", (8, 8, 1))
    config = base.get_config().fine_tune
    config.freeze_batch_normalization = True
    assert isinstance(tuning.build(config, backbone), fine_tuning.FineTuning)
