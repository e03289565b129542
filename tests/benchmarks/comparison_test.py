"""The comparison: same budget for all, class-disjoint folds, resumable, honest intervals."""

import json

import keras
import numpy as np
import pytest

from benchmarks import comparison
from configs import digits
from trainers import datasets
from trainers.training import run_models


@pytest.mark.parametrize("loss", comparison.SPACES)
def test_each_loss_has_the_same_budget_and_its_own_space(loss):
    rates = {"rates": comparison.RATES["digits"]}
    tried = comparison.draws(loss, budget=3, **rates)
    assert len(tried) == 3 and tried == comparison.draws(loss, budget=3, **rates)
    assert len({json.dumps(settings) for settings in tried}) == 3
    for settings in tried:
        assert set(settings) == {"learning_rate", *comparison.SPACES[loss]}
    for name, values in comparison.SPACES[loss].items():
        assert {settings[name] for settings in tried} == set(values)


def test_every_loss_of_training_is_compared():
    # The one is another loss only by a wrong gradient, see glyphs_losses; the other one is a way to
    # compute class_circle.
    left_out = {"keras_circle", "circle_head"}
    assert set(comparison.SPACES) == run_models.LOSSES.keys() - left_out


def test_folds_share_no_class_and_leave_none_out():
    labels = np.arange(30) % 7
    held = comparison.folds(labels, count=3)
    assert np.sum(held, axis=0).tolist() == [1] * 30
    for fold in held:
        assert not set(labels[fold]) & set(labels[~fold])


def test_results_are_kept_as_they_come_and_a_line_cut_short_is_run_again(tmp_path):
    path = tmp_path / "a" / "results.jsonl"
    results = comparison.Results(str(path))
    assert results.get("x", lambda: {"a": 1.0}) == {"a": 1.0}
    results.get("y", lambda: {"a": 2.0})
    with open(path, "a") as stream:
        stream.write('{"key": "z", "rep')
    again = comparison.Results(str(path))
    assert again.get("x", pytest.fail) == {"a": 1.0} and again.get("y", pytest.fail) == {"a": 2.0}
    assert again.get("z", lambda: {"a": 3.0}) == {"a": 3.0}
    assert len(path.read_text().splitlines()) == 3


def test_the_interval_is_students():
    mean, half = comparison.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and half == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=1e-3)


def test_the_highest_is_first():
    report = dict.fromkeys(comparison.METRICS.values(), 0.5)
    better = {name: 0.6 for name in report}
    found = {"a": ({"learning_rate": 0.1}, [report] * 2), "b": ({}, [better, report])}
    table = comparison.rows(found)
    assert [row[0] for row in table] == ["b", "a"]
    assert table[1][1:3] == ["learning_rate 0.1", "0.500 ± 0.000"]


class _Table:
    """Results that are known beforehand: MAP@R by settings and fold."""

    def __init__(self, scores):
        self._scores, self.asked = scores, []

    def get(self, key, make):
        del make
        _, _, settings, fold, *_ = json.loads(key)
        self.asked.append((settings["learning_rate"], fold))
        return {comparison.METRICS["MAP@R"]: self._scores[settings["learning_rate"]][fold]}


def test_the_better_half_goes_on_to_the_next_fold_and_the_mean_decides(monkeypatch):
    monkeypatch.setattr(comparison, "RATES", {"digits": (1, 2, 3, 4)})
    options = {"dataset": "digits", "budget": 4, "folds": 2, "searched_folds": 2}
    options |= {"steps": 1, "precision": "float32"}
    split = datasets.load(digits.get_config().dataset).train
    table = _Table({1: (0.1, 0.9), 2: (0.7, 0.3), 3: (0.6, 0.5), 4: (0.2, 0.9)})
    told = []
    chosen = comparison.choose(
        table, "cross_entropy", split, options=options, tell=lambda: told.append(1)
    )
    assert chosen == {"learning_rate": 3}
    assert sorted(table.asked) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]
    assert len(told) == comparison.runs_of_search(budget=4, folds=2) == 6
    options["searched_folds"] = 1
    chosen = comparison.choose(table, "cross_entropy", split, options=options, tell=lambda: None)
    assert chosen == {"learning_rate": 2}


def test_each_kind_of_loss_has_the_batches_that_suit_it_on_glyphs():
    for loss in run_models.LOSSES:
        config = comparison.recipe("glyphs", loss)
        needs_pairs = loss not in run_models.OF_CLASSES
        expected = (32, 4, 50) if needs_pairs else (128, 1, 200)
        assert (*config.batch.values(), config.optimizer.warmup_steps) == expected, loss
        assert config.loss.name == loss
        assert [*comparison.recipe("digits", loss).batch.values()] == [2, 16]


def test_models_have_the_precision_that_is_asked_for(monkeypatch):
    found = []

    def build(*_, **__):
        found.append(keras.config.dtype_policy().name)
        raise StopIteration

    monkeypatch.setattr(run_models, "build", build)
    images, labels = np.zeros([4, 8, 8, 1], np.uint8), np.arange(4) // 2
    run = {"steps": 1, "seed": 0, "dataset": "digits", "precision": "mixed_bfloat16"}
    try:
        with pytest.raises(StopIteration):
            comparison.train("cross_entropy", {"learning_rate": 1.0}, images, labels, None, **run)
    finally:
        keras.config.set_dtype_policy("float32")
    assert found == ["mixed_bfloat16"]


# Slow: trains five times for a few steps.
@pytest.mark.slow
def test_a_loss_from_search_to_picture(tmp_path):
    dataset = datasets.load(digits.get_config().dataset)
    results = comparison.Results(str(tmp_path / "results.jsonl"))
    options = {"dataset": "digits", "steps": 3, "budget": 2, "folds": 2, "seeds": 2}
    options |= {"precision": "float32", "searched_folds": 2}
    told = []
    tell = {"options": options, "tell": lambda: told.append(1)}
    settings = comparison.choose(results, "arc_face", dataset.train, **tell)
    reports = comparison.judge(results, "arc_face", settings, dataset, **tell)
    assert len(told) == 5 and len(reports) == 2
    assert settings in comparison.draws("arc_face", budget=2, rates=comparison.RATES["digits"])
    assert all(0 < report["mean_average_precision_at_r"] < 1 for report in reports)
    assert reports[0] != reports[1]
    comparison.draw(str(tmp_path / "a.png"), {"arc_face": (settings, reports)}, title="digits")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
