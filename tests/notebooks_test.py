"""The notebooks run from top to bottom, learn what they promise, and are kept without outputs."""

import ast
import os
import pathlib
import re

import nbclient
import nbformat
import pytest

import circle_tf

ROOT = pathlib.Path(__file__).absolute().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
# Each starts a kernel, which imports TensorFlow (10 s), and trains a net.
slow = pytest.mark.slow


def _read(path):
    return nbformat.read(path, as_version=4)


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook at its small size, away from the checkout and from the user's settings."""
    monkeypatch.setenv("SMALL", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))

    def execute(name):
        notebook = _read(ROOT / "notebooks" / f"{name}.ipynb")
        place = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=500, resources=place).execute()
        return _code(notebook)

    return execute


def _outputs(cells, mime):
    outputs = [output for cell in cells for output in cell.outputs]
    return [output.data[mime] for output in outputs if mime in output.get("data", {})]


def _result(cells):
    """What the last cell shows, a dict."""
    return ast.literal_eval(_outputs(cells[-1:], "text/plain")[-1])


@slow
def test_similarity_search(run, tmp_path):
    cells = run("similarity_search")
    assert cells[0].outputs == []  # circle_tf is there: nothing is installed.
    assert len(_outputs(cells, "image/png")) == 3
    result = _result(cells)
    assert result["recall_at_1_before"] < 0.95 < result["recall_at_1_after"]
    assert result["served_as_found"]
    assert list(tmp_path.glob("models/similarity/*/saved_model.pb"))


@slow
def test_fine_tune_photos(run, tmp_path):
    cells = run("fine_tune_photos")
    assert len(_outputs(cells, "image/png")) == 1
    result = _result(cells)
    assert result["before"] < result["with trained blocks"]
    assert result["classes_held_out"] == 8
    assert list(tmp_path.glob("models/photos/*/saved_model.pb"))


@slow
def test_open_set_characters(run):
    cells = run("open_set_characters")
    assert len(_outputs(cells, "image/png")) == 4
    result = _result(cells)
    assert result["recall_at_1_before"] + 0.2 < result["recall_at_1_after"]
    assert result["named"] > 0.4
    assert result["strangers_refused"] > 0.7


@notebooks
def test_notebooks_are_kept_without_outputs(path):
    notebook = _read(path)
    nbformat.validate(notebook)
    assert [cell.id for cell in _code(notebook) if cell.outputs or cell.execution_count] == []
    assert path.read_text() == nbformat.writes(notebook) + "\n"  # One form, so small differences.


@notebooks
def test_notebooks_open_in_colab_and_begin_by_installing_what_is_missing(path):
    notebook = _read(path)
    assert "colab.research.google.com" in notebook.cells[0].source
    first = _code(notebook)[0].source
    assert re.search(
        r'if .*find_spec\("circle_tf"\) is None:\n    %pip install -q circle-tf', first
    )


@notebooks
def test_named_parts_of_the_library_exist(path):
    code = "\n".join(cell.source for cell in _code(_read(path)))
    names = set(re.findall(r"\bcircle_tf\.(?:plots\.)?(\w+)", code))
    assert {name for name in names if not hasattr(circle_tf, name)} <= set(dir(circle_tf.plots))
    assert "EmbeddingModel" in names
