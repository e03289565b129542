import functools
import os

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from configs import digits, glyphs
from trainers import datasets, pictures, workdir


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
    drawing = pictures.BeforeAndAfter(flat(8), load(digits), files=files, margin=None, seed=0)
    drawing.draw(flat(8), step=5)
    names = {"similarity_scatter", "similarity_histograms", "training_curves"}
    assert {os.path.splitext(name)[0] for name in os.listdir(files.plots)} == names
    assert images_in(files) == names
    assert "sprite.png" in os.listdir(files.tensorboard)
    with Image.open(os.path.join(files.plots, "similarity_scatter.png")) as image:
        assert min(image.size) > 300


def test_retrieval_among_the_test_classes_leaves_the_query_out():
    test = load(digits).test
    rows = np.array([3, 800])
    found, similarities = pictures._neighbours(flat(8), test, test, rows)
    assert found.shape == similarities.shape == (2, 8)
    assert not (found == rows[:, None]).any()
    assert (np.diff(similarities) <= 0).all() and similarities.min() > 0.8


def test_retrieval_sheet(tmp_path):
    files = workdir.Workdir(str(tmp_path))
    pictures.draw_retrieval(flat(8), load(digits), files=files, step=5)
    assert os.listdir(files.plots) == ["retrieval_sheet.png"]
    assert images_in(files) == {"retrieval_sheet"}


# Glyphs take seconds to render.
def test_queries_are_looked_up_in_the_gallery():
    data = load(glyphs)
    found, _ = pictures._neighbours(flat(32), data.queries, data.gallery, np.arange(5))
    assert found.shape == (5, 8) and found.max() < len(data.gallery)
