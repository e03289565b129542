import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import evaluation
from configs import base, digits
from tests import processes, stopped_runs
from trainers import datasets
from trainers.cli import commands
from trainers.distributed import agreement, cluster
from trainers.evaluation import metrics
from trainers.input import batches
from trainers.outputs import workdir as workdirs
from trainers.training import hard_classes, loop

HARD = {"group_size": 3, "neighbours": 2, "start": 4, "every": 4}


def recipe(hard=HARD, **changes):
    """A run of seconds over three of the five classes at a time."""
    config = digits.get_config()
    config.deterministic = False
    config.steps, config.eval_every, config.checkpoint_every = 12, 4, 2
    config.eval_examples = 100
    config.batch.update(classes_per_batch=3, examples_per_class=4)
    config.hard_classes.update(hard)
    config.update(changes)
    return config


@pytest.fixture
def made(monkeypatch):
    """How the batches of each span were made: `(first step, nearest classes or None)`."""
    found, make = [], batches.batches

    def watch(*arguments, start_step, **options):
        found.append((start_step, options.get("nearest_classes")))
        return make(*arguments, start_step=start_step, **options)

    monkeypatch.setattr(batches, "batches", watch)
    return found


# Stopped between two refreshes, amid an epoch. Slow: two trainings and a half.
@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_classes_it_had(made, tmp_path, monkeypatch, capsys):
    whole = loop.train(recipe(), workdir=str(tmp_path / "whole"))
    told = capsys.readouterr().out
    assert told.count("nearest of 5 classes found") == 2 and "Step 4: nearest" in told
    spans, made[:] = dict(made), []
    assert list(spans) == [0, 4, 8] and spans[0] is None
    assert (spans[4] != spans[8]).any()
    stopped_runs.killed_after(6, monkeypatch, recipe(), str(tmp_path / "stopped"))
    rest = loop.train(recipe(), workdir=str(tmp_path / "stopped"))
    assert [step for step, _ in made] == [0, 4, 6, 8]
    for step, nearest in made[1:]:
        np.testing.assert_array_equal(nearest, spans[step - step % 4])
    for one, other in zip(stopped_runs.weights(whole), stopped_runs.weights(rest), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_the_nearest_classes_are_those_of_the_features_of_a_cache(made, tmp_path):
    config = recipe({**HARD, "start": 0}, steps=2)
    config.augment.rotation = config.augment.translation = 0.0
    config.fine_tune.update(unfreeze_from="1", cache_features=True)
    config.optimizer.learning_rate = 1e-30  # The model that is saved is the one that looked.
    files = loop.train(config, workdir=str(tmp_path))
    split = datasets.load(config.dataset).train
    embeddings = metrics.embed(keras.models.load_model(files.model), split)
    ((_, found),) = made
    chosen = [np.flatnonzero(split.labels == c) for c in range(5)]
    chosen = np.concatenate([rows[np.arange(4) * len(rows) // 4] for rows in chosen])
    expected = evaluation.nearest_classes(embeddings[chosen], split.labels[chosen], 2)
    np.testing.assert_array_equal(found, expected)


def found(config, *, labels, exchange=None, model=None):
    """`HardClasses` over examples that are their own embeddings."""
    images = np.eye(4, dtype=np.float32)[labels] + np.array([0.5, 0.1, 0.1, 0.0], np.float32)
    split = datasets.Split(images, labels, tuple("abcd"))
    model = model or keras.Sequential([keras.Input((4,)), keras.layers.Identity()])
    exchange = exchange or agreement.Exchange(tf.distribute.get_strategy(), cluster.Cluster())
    return hard_classes.HardClasses(config, split, model=model, exchange=exchange)


def test_without_groups_nothing_is_kept_and_nothing_found():
    hard = found(base.get_config(), labels=np.arange(4))
    assert hard.variables == [] and hard.options(0) == {} and hard.next_refresh(7) == math.inf


def test_when_the_nearest_classes_are_found():
    hard = found(recipe({**HARD, "every": 8}), labels=np.arange(4))
    assert [hard.next_refresh(step) for step in (0, 3, 4, 11, 12)] == [4, 4, 12, 12, 20]
    assert hard.options(3) == {}
    options = hard.options(4)
    assert options["group_size"] == 3
    assert options["nearest_classes"].tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_between_refreshes_they_are_those_of_the_checkpoint():
    hard = found(recipe(), labels=np.arange(4))
    before = hard.options(4)["nearest_classes"]
    rest = found(recipe(), labels=np.arange(4), model=object())  # It is not asked.
    for variable, saved in zip(rest.variables, hard.variables, strict=True):
        variable.assign(saved)
    np.testing.assert_array_equal(rest.options(6)["nearest_classes"], before)


def test_no_more_neighbours_than_there_are_other_classes():
    hard = found(recipe({**HARD, "neighbours": 50}), labels=np.arange(4))
    assert hard.options(4)["nearest_classes"].shape == (4, 3)


def test_other_workers_take_what_the_chief_has_found():
    class Exchange:
        cluster = cluster.Cluster(("a:1", "b:1"), 1)

        def from_chief(self, array):
            assert array.shape == (4, 2)
            return np.full([4, 2], 3)

    # The model that this worker has is not asked.
    hard = found(recipe(), labels=np.arange(4), exchange=Exchange(), model=object())
    assert (hard.options(4)["nearest_classes"] == 3).all()


def test_a_few_examples_spread_over_a_class_stand_for_it():
    labels = np.array([2, 0, 0, 2, 0, 0, 0, 0, 0, 0, 5])
    rows = hard_classes._some_of_each_class(labels)
    assert rows.tolist() == [0, 1, 3, 4, 6, 8, 10]


@pytest.mark.parametrize(
    ("hard", "message"),
    [
        ({"group_size": 4, "neighbours": 8}, "group_size must be at most 3, .* found 4"),
        ({"group_size": 3, "neighbours": 1}, "group_size must be at most 2, .* found 3"),
        ({"group_size": 2, "start": 3}, "start must be a multiple of eval_every=4.* found 3"),
        ({"group_size": 2, "every": 6}, "every must be a multiple of eval_every=4.* found 6"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(hard, message, tmp_path):
    with pytest.raises(commands.ConfigError, match=f"^hard_classes.{message}"):
        loop.train(recipe({**HARD, **hard}), workdir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_without_groups_the_other_fields_do_not_matter():
    hard_classes.check(recipe({"group_size": 1, "start": 3, "every": 7}))


def command(path, *more, module="trainers.train"):
    values = {f"hard_classes.{name}": value for name, value in HARD.items()}
    values |= {"steps": 12, "eval_every": 4, "checkpoint_every": 2, "eval_examples": 100}
    values |= {"batch.classes_per_batch": 3, "batch.examples_per_class": 4}
    options = [f"--config.{name}={value}" for name, value in values.items()]
    return [module, "--config=configs/digits.py", f"--workdir={path}", *options, *more]


# Slow: three processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_killed_runs_end_bitwise_as_uninterrupted_ones(tmp_path):
    whole, killed = workdirs.Workdir(str(tmp_path / "whole")), workdirs.Workdir(str(tmp_path / "k"))
    processes.printed("-m", *command(whole.path))
    _, *options = command(killed.path)
    dying = processes.run("-c", processes.dies_writing(8), *options)
    assert dying.returncode == -signal.SIGKILL
    assert "Resuming after step 6" in processes.printed("-m", *command(killed.path))
    stopped_runs.assert_same(whole, killed)


# Slow: three processes that train, two at a time.
@pytest.mark.slow
def test_two_workers_train_as_two_devices(tmp_path):
    two, workers = (workdirs.Workdir(str(tmp_path / name)) for name in ("two", "workers"))
    mirrored = ["--config.strategy=mirrored", "--config.devices=2"]
    for words in (
        command(two.path, *mirrored),
        command(workers.path, "--workers=2", module="trainers.launch"),
    ):
        done = processes.run("-m", *words)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "Step 8: nearest of 5" in done.stdout
    for one, other in zip(stopped_runs.weights(two), stopped_runs.weights(workers), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
