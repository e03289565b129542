"""Whole files or none."""

import pytest

from circle_tf.utils import files


def test_a_failed_write_leaves_the_older_file_and_no_rubbish(tmp_path):
    path = tmp_path / "plots" / "a.png"
    for content in ("first", "second"):
        with files.replacing(path) as partial, open(partial, "w") as stream:
            stream.write(content)
        assert path.read_text() == content
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        with open(partial, "w") as stream:
            stream.write("hal")
        assert path.read_text() == "second" and partial.endswith(".png")
        raise KeyboardInterrupt
    assert [entry.name for entry in path.parent.iterdir()] == ["a.png"]
    assert path.read_text() == "second"


def test_a_name_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with files.replacing("a.txt") as partial, open(partial, "w") as stream:
        stream.write("x")
    assert (tmp_path / "a.txt").read_text() == "x"
