"""Versions grow, are chosen by one publisher at a time, and appear whole."""

import os
import threading

import pytest

from export.cli import console
from export.rollout import versions


def _make(base_path, *names):
    for name in names:
        (base_path / name).mkdir(parents=True)
    return str(base_path)


def test_the_first_version_is_1(tmp_path):
    assert versions.choose(str(tmp_path / "none")) == 1
    assert not (tmp_path / "none").exists()


def test_the_next_is_one_above_the_highest_number(tmp_path):
    base_path = _make(tmp_path, "1", "9", "10", ".tmp-11", "12-old", "notes")
    assert versions.existing(base_path) == [1, 9, 10]
    assert versions.choose(base_path) == 11
    assert versions.choose(base_path, wanted=20) == 20


@pytest.mark.parametrize(
    ("wanted", "message"),
    [(2, "Version 2 exists.*publish version 6"), (3, "not above the highest.*, 5.*version 6")],
)
def test_versions_are_neither_replaced_nor_go_back(tmp_path, wanted, message):
    base_path = _make(tmp_path, "2", "5")
    with pytest.raises(console.ExportError, match=message):
        versions.choose(base_path, wanted=wanted)


def test_a_version_is_not_a_base_path(tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(console.ExportError, match="is itself a SavedModel"):
        versions.choose(str(tmp_path))


def test_remote_paths_are_refused():
    with pytest.raises(console.ExportError, match="not a local directory"):
        versions.choose("gs://bucket/models")


def test_staging_removes_itself_and_what_a_dead_publisher_left(tmp_path):
    base_path = _make(tmp_path, "1", ".tmp-dead", "notes")
    (tmp_path / ".tmp-dead" / "half").write_bytes(b"half a model")
    with pytest.raises(KeyboardInterrupt), versions.staging(base_path) as stage:
        assert os.path.dirname(stage) == base_path and os.path.basename(stage).startswith(".")
        assert sorted(os.listdir(base_path)) == sorted([os.path.basename(stage), "1", "notes"])
        raise KeyboardInterrupt
    assert sorted(os.listdir(base_path)) == ["1", "notes"]


def test_publishers_take_turns(tmp_path):
    base_path, order, lines = str(tmp_path), [], []
    waiting = threading.Event()

    def tell(line):
        lines.append(line)
        waiting.set()

    def second():
        with versions.exclusive(base_path, tell=tell):
            order.append("second")

    thread = threading.Thread(target=second)
    with versions.exclusive(base_path, tell=lines.append):
        thread.start()
        assert waiting.wait(timeout=30)
        order.append("first")
    thread.join(timeout=30)
    assert order == ["first", "second"]
    assert len(lines) == 1 and "Waiting for another publish" in lines[0]
