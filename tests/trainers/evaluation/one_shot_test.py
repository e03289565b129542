import keras
import numpy as np
import pytest
from PIL import Image

from tests import handwriting
from trainers.evaluation import one_shot
from trainers.outputs import report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs")
    handwriting.one_shot_runs(path, runs=3, ways=5)
    return path


@pytest.fixture(scope="module")
def model():
    """Pixels of 15 x 15 as they are."""
    inputs = keras.Input((15, 15, 1))
    flat = keras.layers.Flatten()(keras.layers.Rescaling(-1 / 255, offset=1)(inputs))
    return keras.Model(inputs, keras.layers.UnitNormalization()(flat))


def _expected(folder, run):
    """Share of wrong items by Pillow's pixels, averaged over squares of 7 x 7, and float64."""

    def embed(file):
        pixels = 1 - np.asarray(Image.open(folder / file), np.float64)
        flat = pixels.reshape(15, 7, 15, 7).mean((1, 3)).ravel()
        return flat / np.linalg.norm(flat)

    lines = [line.split() for line in (folder / run / "class_labels.txt").read_text().splitlines()]
    classes = sorted(of_class for _, of_class in lines)
    wrong = 0
    for item, of_class in lines:
        similarities = [embed(item) @ embed(file) for file in classes]
        wrong += classes[int(np.argmax(similarities))] != of_class
    return wrong / len(lines)


def test_error_is_that_of_the_nearest_drawing(folder, model):
    found = one_shot.protocols(str(folder))["one_shot_runs"](model)
    expected = {run: _expected(folder, run) for run in ("run01", "run02", "run03")}
    assert found["error_of_run"] == pytest.approx(expected)
    assert 0 < found["error"] == pytest.approx(np.mean(list(expected.values())))
    assert min(expected.values()) <= found["error_low"] <= found["error"] <= found["error_high"]
    assert (found["runs"], found["items"]) == (3, 15)


def test_a_model_that_knows_nothing_is_as_good_as_chance(folder, model):
    inputs = keras.Input((15, 15, 1))
    same = keras.layers.Dense(2, kernel_initializer="zeros", bias_initializer="ones")
    outputs = keras.layers.UnitNormalization()(same(keras.layers.Flatten()(inputs)))
    found = one_shot.protocols(str(folder))["one_shot_runs"](keras.Model(inputs, outputs))
    assert found["error"] == pytest.approx(0.8)


def test_the_table_has_each_run_and_the_interval(folder, model):
    found = one_shot.protocols(str(folder))
    told = report.table({name: judge(model) for name, judge in found.items()})
    assert "one-shot-runs" in told and "95 % from" in told
    assert "Error of each run: run01 0." in told and "run03" in told


def test_one_run_has_no_interval(folder, model, tmp_path):
    handwriting.one_shot_runs(tmp_path, runs=1, ways=3)
    found = one_shot.protocols(str(tmp_path))
    told = report.table({name: judge(model) for name, judge in found.items()})
    assert told.splitlines()[1].split()[2:] == ["-", "-", "1", "3"]
