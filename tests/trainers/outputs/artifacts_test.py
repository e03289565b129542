import functools
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from circle_tf import calibrate, plots
from configs import digits, glyphs
from trainers import datasets
from trainers.outputs import artifacts, workdir


@functools.cache
def flat(size):
    """Pixels as embeddings."""
    pixels = keras.Input((size, size, 1))
    return keras.Model(pixels, keras.layers.Flatten()(pixels))


@functools.cache
def load(module):
    return datasets.load(module.get_config().dataset)


def images_in(files):
    """Names of the pictures that TensorBoard finds."""
    names = set()
    for name in os.listdir(files.tensorboard):
        if "tfevents" in name:
            path = os.path.join(files.tensorboard, name)
            for event in tf.compat.v1.train.summary_iterator(path):
                names |= {value.tag for value in event.summary.value}
    return names


def test_before_and_after(tmp_path):
    files = workdir.Workdir(str(tmp_path))
    workdir.MetricsLog(files.metrics).append({"step": 5, "loss": 2.0, "val_recall_at_1": 0.5})
    drawing = artifacts.BeforeAndAfter(flat(8), load(digits), files=files, margin=None, seed=0)
    drawing.draw(flat(8), step=5)
    names = {"similarity_scatter", "similarity_histograms", "training_curves"}
    assert {os.path.splitext(name)[0] for name in os.listdir(files.plots)} == names
    assert images_in(files) == names
    assert "sprite.png" in os.listdir(files.tensorboard)
    with Image.open(os.path.join(files.plots, "similarity_scatter.png")) as image:
        assert min(image.size) > 300


def test_classes_of_one_image_have_no_similarities_to_draw(tmp_path):
    images = np.zeros([3, 8, 8, 1], np.uint8)
    single = datasets.Split(images, np.arange(3), ("a", "b", "c"))
    data = datasets.Dataset("made up", single, single, None, None, (8, 8, 1), "")
    files = workdir.Workdir(str(tmp_path))
    drawing = artifacts.BeforeAndAfter(flat(8), data, files=files, margin=None, seed=0)
    with pytest.warns(UserWarning, match="is not drawn: Pairs need two classes") as found:
        drawing.draw(flat(8), step=5)
    assert len(found) == 2
    assert "sprite.png" in os.listdir(files.tensorboard)


@pytest.fixture
def drawn(monkeypatch):
    """What the sheets of a test show: the arguments that each was drawn from."""
    shown, draw = [], plots.retrieval_sheet

    def watch(queries, neighbours, **options):
        shown.append({"queries": queries, "neighbours": neighbours, **options})
        return draw(queries, neighbours, **options)

    monkeypatch.setattr(plots, "retrieval_sheet", watch)
    return shown


def test_a_sheet_of_the_test_classes_leaves_each_query_out(tmp_path, drawn):
    files = workdir.Workdir(str(tmp_path))
    artifacts.draw_retrieval(flat(8), load(digits), files=files, step=5)
    assert os.listdir(files.plots) == ["retrieval_sheet.png"]
    assert images_in(files) == {"retrieval_sheet"}
    (sheet,) = drawn
    assert sheet["similarities"].shape == sheet["neighbour_labels"].shape == (10, 8)
    assert (np.diff(sheet["similarities"]) <= 0).all() and sheet["similarities"].min() > 0.8
    same = sheet["neighbours"] == sheet["queries"][:, None]
    assert not same.all(axis=(2, 3, 4)).any()


def test_thresholds_are_drawn(tmp_path):
    rows = np.random.default_rng(0).normal(size=(40, 4))
    labels = np.arange(40) % 10
    files = workdir.Workdir(str(tmp_path))
    with pytest.warns(UserWarning, match="too small"):
        found = calibrate(rows, labels)
    artifacts.draw_decision(rows, labels, found, files=files, step=5)
    assert os.listdir(files.plots) == ["decision_thresholds.png"]
    assert images_in(files) == {"decision_thresholds"}


# Glyphs take seconds to render.
def test_queries_are_looked_up_in_the_gallery(tmp_path, drawn):
    data = load(glyphs)
    artifacts.draw_retrieval(flat(32), data, files=workdir.Workdir(str(tmp_path)), step=5)
    (sheet,) = drawn
    gallery = {image.tobytes() for image in data.gallery.images(np.arange(len(data.gallery)))}
    assert sheet["neighbours"].shape[:2] == (10, 8)
    assert {image.tobytes() for row in sheet["neighbours"] for image in row} <= gallery
    assert not {image.tobytes() for image in sheet["queries"]} & gallery
