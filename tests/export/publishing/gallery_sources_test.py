"""Galleries of folders: embeddings of what stands in the files, and all bad files are told."""

import os

import numpy as np
import pytest
import tensorflow as tf

from export.cli import console, runs
from export.publishing import gallery_sources, thumbnails
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
    _, rows, _ = gallery_sources._embed_files(counted, files, SHAPE, 0)
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


def _sizes(small):
    return [tf.io.decode_jpeg(content).shape.as_list()[:2] for content in small]


def test_thumbnails_keep_proportions_and_are_never_larger_than_asked_for(tmp_path, model):
    for name, shape in (("wide", [20, 40, 3]), ("high", [90, 30, 3]), ("small", [5, 7, 3])):
        pixels = np.random.default_rng(0).integers(0, 256, shape)
        (tmp_path / f"{name}.png").write_bytes(probes.as_png(pixels))
    made = _from(tmp_path, model, thumbnails=30)
    assert made.ids.tolist() == ["high.png", "small.png", "wide.png"]
    assert _sizes(made.thumbnails) == [[30, 10], [5, 7], [15, 30]]
    assert _from(tmp_path, model).thumbnails is None


def test_they_show_the_image_that_was_embedded(broken, model):
    made = _from(broken, model, skip_unreadable=True, thumbnails=8)
    for name, content in zip(made.ids, made.thumbnails, strict=True):
        shown = tf.io.decode_jpeg(content).numpy()[..., :1].astype(float)
        errors = [np.abs(shown - image).mean() for image in saved_models.IMAGES]
        assert np.argmin(errors) == int(name[2:4])


def test_all_together_they_have_a_bound(folder, model, monkeypatch):
    monkeypatch.setattr(gallery_sources, "_BATCH", 4)
    whole = _from(folder, model, thumbnails=8).thumbnails
    room = sum(map(len, whole[:6]))
    monkeypatch.setattr(thumbnails, "MOST_BYTES", room)
    found = _from(folder, model, thumbnails=8).thumbnails
    assert found == whole[:6] + [b""] * 11


@pytest.mark.parametrize(("side", "expected"), [(8, [8, 8]), (96, [8, 8]), (4, [4, 4]), (0, None)])
def test_those_of_a_gallery_file_are_never_larger_than_asked_for(tmp_path, model, side, expected):
    workdir = saved_models.finished_run(tmp_path / "run", model=model)
    content = {"labels": np.arange(17) % 2, "class_names": np.array(["a", "b"])}
    np.savez(workdir / "held_out.npz", images=saved_models.IMAGES.astype(np.uint8), **content)
    run = runs.read(str(workdir))
    options = {"run": run, "model": model, "image_shape": SHAPE}
    made = gallery_sources.load("held_out", **options, thumbnails=8)
    made.save(tmp_path / "gallery.npz")
    again = gallery_sources.load(str(tmp_path / "gallery.npz"), **options, thumbnails=side)
    assert again.ids.tolist() == made.ids.tolist()
    if expected is None:
        assert again.thumbnails is None
    else:
        assert _sizes(again.thumbnails) == [expected] * 17
    assert (again.thumbnails == made.thumbnails) == (side >= 8)
