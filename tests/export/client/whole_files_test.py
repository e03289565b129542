"""A file of the client appears whole, or the older one stays."""

import os

import pytest

from export.client import whole_files


def test_an_error_leaves_the_older_file_and_nothing_else(tmp_path):
    path = tmp_path / "index.npz"
    path.write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt), whole_files.writing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == ["index.npz"]
    with whole_files.writing(path) as stream:
        stream.write(b"newer")
    assert path.read_bytes() == b"newer" and os.listdir(tmp_path) == ["index.npz"]
