"""The projector's files, read back by TensorBoard's own plugin."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.plugins import base_plugin
from tensorboard.plugins.projector import projector_plugin
from werkzeug import test, wrappers

from circle_tf.plots import projector

RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.normal(size=(5, 3)).astype(np.float32)


def ask(logdir, route, **query):
    context = base_plugin.TBContext(logdir=str(logdir), data_provider=None, multiplexer=None)
    plugin = projector_plugin.ProjectorPlugin(context)
    app = plugin.get_plugin_apps()[route]
    response = test.Client(app, wrappers.Response).get("/", query_string={"run": ".", **query})
    assert response.status_code == 200, response.data
    return response.data


def test_tensorboard_reads_it_back(tmp_path):
    images = RNG.integers(0, 256, (5, 4, 6, 1)).astype(np.uint8)
    names = ["a\tb", "ω", "c\nd"]
    labels = np.array([0, 1, 2, 1, 0])
    projector.write_projector(tmp_path, EMBEDDINGS, images=images, labels=labels, class_names=names)
    (entry,) = json.loads(ask(tmp_path, "/info"))["embeddings"]
    assert entry["tensorShape"] == [5, 3]
    assert entry["sprite"]["singleImageDim"] == [6, 4]
    name = entry["tensorName"]
    tensor = np.frombuffer(ask(tmp_path, "/tensor", name=name), np.float32)
    np.testing.assert_allclose(tensor.reshape(5, 3), EMBEDDINGS, rtol=1e-5)
    lines = ask(tmp_path, "/metadata", name=name).decode().splitlines()
    assert lines == ["class\trow", "a b\t0", "ω\t1", "c d\t2", "ω\t3", "a b\t4"]
    sprite = tf.io.decode_png(ask(tmp_path, "/sprite_image", name=name)).numpy()
    assert sprite.shape == (12, 18, 3)
    np.testing.assert_array_equal(sprite[4:8, :6], np.repeat(images[3], 3, axis=-1))


def test_points_alone(tmp_path):
    projector.write_projector(tmp_path, EMBEDDINGS)
    assert {p.name for p in tmp_path.iterdir()} == {"embeddings.tsv", "projector_config.pbtxt"}


def test_wide_labels_without_names(tmp_path):
    labels = np.array([[2**62], [1], [1], [1], [1]])
    projector.write_projector(tmp_path, EMBEDDINGS, labels=labels)
    assert (tmp_path / "metadata.tsv").read_text().splitlines()[1] == f"{2**62}\t0"


def test_large_images_are_made_smaller(tmp_path, monkeypatch):
    monkeypatch.setattr(projector, "_LARGEST_SPRITE", 24)
    projector.write_projector(tmp_path, EMBEDDINGS, images=np.full([5, 10, 16, 3], 77, np.uint8))
    sprite = tf.io.decode_png((tmp_path / "sprite.png").read_bytes()).numpy()
    assert sprite.shape == (15, 24, 3)
    assert (sprite[:5] == 77).all()


def test_lengths_differ(tmp_path):
    with pytest.raises(ValueError, match="labels must be as many as the embeddings, 5; found 2"):
        projector.write_projector(tmp_path, EMBEDDINGS, labels=[1, 2])
    with pytest.raises(ValueError, match="images must be as many"):
        projector.write_projector(tmp_path, EMBEDDINGS, images=np.zeros([1, 2, 2, 1]))
    assert not list(tmp_path.iterdir())


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.plugins.projector", None)
    with pytest.raises(ImportError, match=r"pip install 'circle-tf\[train\]'"):
        projector.write_projector(tmp_path, EMBEDDINGS)
