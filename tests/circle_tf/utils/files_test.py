"""Whole files or none."""

import errno
import os

import pytest
import tensorflow as tf

from circle_tf.utils import files
from tests import disks


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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EFBIG])
@pytest.mark.parametrize("kind", ["with its path", "without", "TensorFlow's", "TensorFlow's graph"])
def test_what_the_disk_refuses_is_told_in_one_sentence(kind, code):
    reason = os.strerror(code)
    error = {
        "with its path": OSError(code, reason, "/runs/a/b.json"),
        "without": OSError(code, reason),
        "TensorFlow's": tf.errors.ResourceExhaustedError(None, None, f"/runs/a/b; {reason}"),
        "TensorFlow's graph": tf.errors.OutOfRangeError(
            None, None, f"{{{{function_node __wrapped__SaveV2}}}} /runs/a/b; {reason} [Op:SaveV2]"
        ),
    }[kind]
    with pytest.raises(OSError) as found, files.disk_errors("/runs/a"):
        raise error
    assert str(found.value) == (
        f"/runs/a cannot be written to: {reason}. Make room or allow writing there, then give the "
        "same command again: what was whole before still is."
    )


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/photos/a.png"),
        tf.errors.PermissionDeniedError(None, None, "/photos/a.png; Permission denied"),
        tf.errors.ResourceExhaustedError(None, None, "OOM when allocating a tensor; [Op:MatMul]"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/runs/a/b"),
        ValueError("/runs/a; whatever"),
        KeyboardInterrupt(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as found, files.disk_errors("/runs/a"):
        raise error
    assert found.value is error


def test_tensorflow_itself_is_understood(tmp_path):
    with disks.full_beyond(10), pytest.raises(OSError) as found, files.disk_errors(tmp_path):
        tf.io.write_file(str(tmp_path / "file"), "more than ten bytes")
    assert str(found.value).startswith(f"{tmp_path} cannot be written to: File too large. Make ")
