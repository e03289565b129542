"""Galleries of folders: embeddings of what stands in the files, and all bad files are told."""

import os

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.data import decoding
from export.cli import console
from export.publishing import gallery_sources
from export.verification import probes
from tests import saved_models

SHAPE = saved_models.SHAPE


@pytest.fixture(scope="module")
def model():
    return saved_models.embedding_model()


@pytest.fixture
def folder(tmp_path):
    """Seventeen images of two classes."""
    for number, image in enumerate(saved_models.IMAGES):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(probes.as_png(image))
    return tmp_path / "photos"


def _from(folder, model, **options):
    return gallery_sources.from_folder(str(folder), model=model, image_shape=SHAPE, **options)


def test_the_embeddings_of_a_folder(folder, model, monkeypatch):
    monkeypatch.setattr(gallery_sources, "_BATCH", 4)  # Several batches, the last one smaller.
    made = _from(folder, model)
    order = [*range(0, 17, 2), *range(1, 17, 2)]
    assert made.ids.tolist() == [f"{'ab'[n % 2]}/{n:02}.png" for n in order]
    assert list(made.classes) == ["a"] * 9 + ["b"] * 8
    expected = model(saved_models.IMAGES[order], training=False)
    np.testing.assert_allclose(made.embeddings, expected, atol=1e-6)


def test_a_model_is_traced_once(folder, model, monkeypatch):
    monkeypatch.setattr(gallery_sources, "_BATCH", 4)
    traces = []

    def counted(batch, training):
        traces.append(batch.shape)
        return model(batch, training=training)

    files = [os.fsencode(path) for path in sorted(folder.glob("*/*.png"))]
    _, rows = gallery_sources._embed_files(counted, files, decoding.image_decoder(SHAPE))
    assert rows.tolist() == list(range(17))
    gallery_sources.embed(counted, saved_models.IMAGES)
    assert [shape.as_list() for shape in traces] == [[None, *SHAPE]] * 2


@pytest.fixture
def broken(folder):
    (folder / "a" / "00.png").write_text("a text")
    (folder / "b" / "03.png").write_bytes(b"")
    (folder / "b" / "gone.png").symlink_to(folder / "none")
    return folder


def test_all_files_that_cannot_be_read_are_told(broken, model, capsys):
    with pytest.raises(console.ExportError, match="3 of 18 images cannot be read.*--skip_unreadab"):
        _from(broken, model)
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(".png: ")[0] for line in told] == [
        f"unreadable: {name}" for name in ("a/00", "b/03", "b/gone")
    ]
    assert "Unknown image file format" in told[0] and "No such file" in told[2]


def test_they_can_be_left_out(broken, model, capsys):
    made = _from(broken, model, skip_unreadable=True)
    assert len(made) == 15 and "a/00.png" not in made.ids
    row = made.ids.tolist().index("b/05.png")
    expected = model(tf.constant(saved_models.IMAGES[5:6]), training=False)[0]
    np.testing.assert_allclose(made.embeddings[row], expected, atol=1e-6)
    assert capsys.readouterr().err.count("unreadable: ") == 3


def test_a_folder_of_bad_files_alone(tmp_path, model):
    (tmp_path / "a.png").write_text("a text")
    with pytest.raises(console.ExportError, match="none of 1 images can be read"):
        _from(tmp_path, model, skip_unreadable=True)
