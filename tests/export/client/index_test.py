"""Indexes: built through a real server, exact to the tie, refused to other models."""

import os

import numpy as np
import pytest

from export import client
from export.cli import console
from export.client import index
from export.verification import probes
from tests import saved_models, served_models


@pytest.fixture
def folder(tmp_path):
    for number in range(5):
        path = tmp_path / "photos" / f"{'ab'[number % 2]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(probes.as_png(saved_models.IMAGES[number]))
    return str(tmp_path / "photos")


@pytest.fixture
def served(target):
    with client.connect(target.grpc, model="tiny", version=1) as opened:
        yield opened


def _unit(rows, *, seed=0, dim=8):
    found = np.random.default_rng(seed).normal(size=(rows, dim))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def _index(embeddings):
    ids = np.array([f"row{row}" for row in range(len(embeddings))])
    return index.Index(embeddings, ids, np.eye(2, dtype=np.float32))


def test_build_save_load_search(served, folder, tmp_path):
    made = index.build(served, folder, batch_size=2)
    assert made.ids.tolist() == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png"]
    expected = served_models.embedded(saved_models.IMAGES[[0, 2, 4, 1, 3]], shift=1)
    np.testing.assert_allclose(made.embeddings, expected, atol=1e-6)
    made.save(tmp_path / "index.npz")
    assert [name for name in os.listdir(tmp_path) if "index" in name] == ["index.npz"]
    again = index.Index.load(tmp_path / "index.npz")
    assert (again.model, again.folder) == ("tiny", folder)
    again.check(served)
    ids, scores = again.search(expected[[3]], k=2)
    assert ids[0, 0] == "b/1.png"
    np.testing.assert_allclose(scores[0], np.sort(expected @ expected[3])[::-1][:2], atol=1e-6)


def test_by_rest_the_same_index_is_made(target, served, folder):
    with client.connect(target.rest, model="tiny", version=1) as by_rest:
        index.build(by_rest, folder).check(served)


def _spoil(folder, names):
    for name in names:
        with open(os.path.join(folder, name), "wb") as stream:
            stream.write(b"no image")


def test_files_that_are_refused_are_all_told_and_left_out_only_if_asked(served, folder, capsys):
    _spoil(folder, ["a/2.png", "b/1.png", "b/3.png"])
    with pytest.raises(console.ExportError, match=r"3 of 5 images were refused.*--skip_unreadable"):
        index.build(served, folder, batch_size=2)
    told = capsys.readouterr().err.strip().split("\n")
    assert [line.rpartition(".png: ")[0] + ".png" for line in told] == [
        f"unreadable: {os.path.join(folder, name)}" for name in ("a/2.png", "b/1.png", "b/3.png")
    ]
    made = index.build(served, folder, batch_size=2, skip_unreadable=True)
    assert made.ids.tolist() == ["a/0.png", "a/4.png"]
    expected = served_models.embedded(saved_models.IMAGES[[0, 4]], shift=1)
    np.testing.assert_allclose(made.embeddings, expected, atol=1e-6)


def test_a_folder_of_refused_files(served, folder):
    _spoil(folder, [f"{'ab'[number % 2]}/{number}.png" for number in range(5)])
    with pytest.raises(client.ServerError, match=r"a/0\.png: "):
        index.build(served, folder, skip_unreadable=True)


def test_another_model_is_refused(target, served, folder):
    made = index.build(served, folder)
    other = index.Index(made.embeddings, made.ids, made.probes[:, ::-1])
    with pytest.raises(console.ExportError, match=r"made by another model than 'tiny' serves now"):
        other.check(served)
    narrow = index.Index(made.embeddings, made.ids, made.probes[:, :3])
    with pytest.raises(console.ExportError, match=r"64 numbers an embedding.*Build it again"):
        narrow.check(served)


@pytest.mark.parametrize("backend", ["exact", "faiss"])
@pytest.mark.parametrize("k", [1, 7, 40])
def test_search_is_a_sort_of_all(backend, k, monkeypatch):
    monkeypatch.setattr(index, "_CHUNK_BYTES", 1000)  # Several chunks of queries.
    rows, queries = _unit(40), _unit(9, seed=1)
    ids, scores = _index(rows).search(queries, k=k, backend=backend)
    order = np.argsort(-(queries.astype(float) @ rows.T.astype(float)), axis=1)[:, :k]
    assert ids.tolist() == [[f"row{row}" for row in found] for found in order]
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ rows.T, order, axis=1), atol=1e-6
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_of_equal_ones_the_earlier_row_is_nearer(k):
    rows = np.eye(2, dtype=np.float32)[[1, 0, 1, 0, 0]]
    ids, _ = _index(rows).search(np.array([[1.0, 0.0]]), k=k)
    assert ids[0].tolist() == ["row1", "row3", "row4", "row0", "row2"][:k]


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 8)), 0, r"k must be in 1\.\.4, the index's rows; found 0"),
        (np.ones((1, 8)), 5, "found 5"),
        (np.ones((1, 3)), 1, r"embeddings of 8 numbers; found queries of shape \[1, 3\]"),
        (np.ones(8), 1, r"found queries of shape \[8\]"),
    ],
)
def test_bad_searches(queries, k, message):
    with pytest.raises(console.ExportError, match=message):
        _index(_unit(4)).search(queries, k=k)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_index(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is None:
        np.savez(path, embeddings=np.eye(2))
    else:
        path.write_bytes(content)
    with pytest.raises(console.ExportError, match="is not an index.*Build one"):
        index.Index.load(path)


def test_an_index_runs_no_code(tmp_path):
    path = tmp_path / "a.npz"
    parts = dict.fromkeys(("embeddings", "probes", "model", "folder"), np.eye(2))
    np.savez(path, ids=np.array([print], object), **parts)
    with pytest.raises(console.ExportError, match="Object arrays cannot be loaded"):
        index.Index.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        _index(_unit(2)).save(path)
    assert os.listdir(tmp_path) == ["a.npz"] and path.read_bytes() == b"old"


def test_an_empty_folder(served, tmp_path):
    with pytest.raises(console.ExportError, match="There are no images in"):
        index.build(served, str(tmp_path))


def test_a_model_of_something_else_than_images(target):
    with client.connect(target.grpc, model="examples") as served:
        with pytest.raises(console.ExportError, match="serving_default of 'examples' takes no im"):
            index.probe(served)
