"""The search over a made-up training, whose best setting is known; and one over real ones."""

import csv
import importlib.util
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from configs import digits
from tests import processes
from trainers.cli import commands
from trainers.tuning import spaces, study

SPACE = {
    "loss.gamma": spaces.Range(8.0, 512.0, log=True),
    "batch.examples_per_class": spaces.Choice((2, 12)),
}


def score(values, fold):
    """Highest at gamma 64 and 12 examples of each class."""
    gamma = abs(np.log2(values["loss.gamma"] / 64))
    return 0.9 - 0.1 * gamma - 0.2 * (values["batch.examples_per_class"] == 2) + 0.01 * fold


@pytest.fixture
def trained(monkeypatch):
    """Settings and folds that were trained, by a function in the place of processes."""
    found = []

    def train(search, trial, values, fold, processes):
        found.append((values, fold))
        return score(values, fold)

    monkeypatch.setattr(study, "_train", train)
    return found


def tune(path, **options):
    return study.tune(
        digits.get_config(),
        **{"workdir": str(path), "space": SPACE, "trials": 15, "folds": 3, "metric": "m"} | options,
    )


def recipe(path):
    spec = importlib.util.spec_from_file_location("found", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(path):
    with open(path / "trials.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_the_best_setting_becomes_a_recipe(tmp_path, trained, side_by_side):
    best = recipe(tune(tmp_path, trials=25, processes=side_by_side))
    config, expected = best.get_config(), digits.get_config()
    found = max((row for row in rows(tmp_path) if row["mean"]), key=lambda row: float(row["mean"]))
    assert config.loss.gamma == float(found["loss.gamma"])
    assert 32 < config.loss.gamma < 128 and config.batch.examples_per_class == 12
    assert f"{float(found['mean']):.4f}" in best.__doc__ and "--config=" in best.__doc__
    expected.loss.gamma = config.loss.gamma
    assert config.to_dict() == expected.to_dict()
    with Image.open(tmp_path / "trials.png") as picture:
        assert picture.width > picture.height


def test_what_is_behind_most_others_is_given_up(tmp_path, trained, capsys):
    tune(tmp_path, trials=20)
    pruned = [row for row in rows(tmp_path) if row["state"] == "pruned"]
    assert pruned and all(row["fold0"] and not row["fold2"] for row in pruned)
    assert len(trained) < 20 * 3
    assert "behind most others: given up" in capsys.readouterr().out


def test_a_search_goes_on_and_tries_other_settings(tmp_path, trained):
    tune(tmp_path, trials=4)
    before = len(trained)
    tune(tmp_path, trials=4)
    assert len(trained) == before
    tune(tmp_path, trials=7)
    assert len(rows(tmp_path)) == 7
    gammas = {values["loss.gamma"] for values, _ in trained}
    assert len(gammas) == 7


def test_a_setting_that_was_cut_off_is_trained_anew_in_its_folder(tmp_path, trained, monkeypatch):
    finished, train = [], study._train

    def killed(search, trial, values, fold, processes):
        if len(trained) == 4:
            raise KeyboardInterrupt
        return train(search, trial, values, fold, processes)

    monkeypatch.setattr(study, "_train", killed)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path, trials=3, folds=3)
    (cut_off, _) = trained[3]
    monkeypatch.setattr(
        study,
        "_train",
        lambda search, trial, values, fold, processes: (
            finished.append((study._folder(trial), values)) or train(search, trial, values, fold, 1)
        ),
    )
    tune(tmp_path, trials=3, folds=3)
    assert finished[0] == ("0001", cut_off)
    assert len(rows(tmp_path)) == 3


def test_another_search_is_refused(tmp_path, trained):
    tune(tmp_path, trials=1)
    with pytest.raises(commands.ConfigError, match="another search:\n  folds: the run has 3"):
        tune(tmp_path, trials=1, folds=2)
    with pytest.raises(commands.ConfigError, match="space.loss.gamma"):
        tune(tmp_path, space={"loss.gamma": spaces.Range(1.0, 2.0)})


def test_settings_that_diverge_are_told_and_left(tmp_path, monkeypatch, capsys):
    def train(search, trial, values, fold, processes):
        return "The loss became NaN." if values["loss.gamma"] > 100 else score(values, fold)

    monkeypatch.setattr(study, "_train", train)
    tune(tmp_path)
    states = [row["state"] for row in rows(tmp_path)]
    assert "fail" in states and "complete" in states and len(states) == 15
    assert "The loss became NaN. at loss.gamma" in capsys.readouterr().out


def test_where_nothing_can_be_trained_the_search_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "_train", lambda *_: "There is no folder 'photos'.")
    with pytest.raises(commands.ConfigError, match="No setting.*There is no folder 'photos'"):
        tune(tmp_path)
    assert [row["state"] for row in rows(tmp_path)] == ["fail"] * 3
    assert not os.path.exists(tmp_path / "best.py")


OPTIONS = [
    *("-m", "trainers.tune", "--config=configs/digits.py", "--trials=2", "--folds=2"),
    *("--config.steps=4", "--config.eval_every=2", "--config.batch.classes_per_batch=2"),
    "--search=loss.gamma=32:64",
]


# Slow: five processes that train.
@pytest.mark.slow
def test_the_command_and_training_by_what_it_found(tmp_path):
    said = processes.printed(*OPTIONS, f"--workdir={tmp_path}/tuned", "--processes=2")
    assert f"Next: python -m trainers.train --config={tmp_path}/tuned/best.py" in said
    assert not (tmp_path / "tuned" / "trials" / "0000" / "fold0" / "checkpoints").exists()
    said = processes.printed(
        *("-m", "trainers.train", f"--config={tmp_path}/tuned/best.py"),
        f"--workdir={tmp_path}/run",
    )
    assert "digits: 901 scans of 0-4 to train on" in said and "Fold" not in said


# Slow: it waits for a training to begin.
@pytest.mark.slow
def test_sigterm_lets_the_training_save_and_says_how_to_go_on(tmp_path):
    command = [sys.executable, *OPTIONS, f"--workdir={tmp_path}", "--config.steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log, waited = tmp_path / "trials" / "0000" / "fold0" / "metrics.jsonl", threading.Event()
    while not log.exists() and process.poll() is None:
        waited.wait(0.1)
    process.terminate()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and "Go on: python -m trainers.tune" in said
    assert os.listdir(log.parent / "checkpoints")
