"""Pairs in pickles, which may not run anything."""

import os
import pickle

import numpy as np
import pytest

from tests import layouts as fixtures
from trainers.datasets import DataError
from trainers.datasets.faces import face_bin


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("of_same", [list, np.array, lambda same: list(np.array(same))])
def test_bin_sets_are_read(tmp_path, arrays, of_same, protocol):
    path = tmp_path / "lfw.bin"
    fixtures.face_bin(path, arrays=arrays, protocol=protocol, of_same=of_same)
    images, same = face_bin.read(str(path))
    assert len(images) == 8 and all(image[:2] == b"\xff\xd8" for image in images)
    assert same.tolist() == [True, False, True, False] and same.dtype == bool


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing(tmp_path, protocol):
    path, trace = tmp_path / "a.bin", tmp_path / "ran"
    path.write_bytes(pickle.dumps(([_Hostile(trace)], [True]), protocol=protocol))
    with pytest.raises(DataError, match="refused: it wants to load .*system.*another source"):
        face_bin.read(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_bools_of_either_numpy(tmp_path, module):
    content = pickle.dumps(([b"a", b"b"], [np.True_]), protocol=0)
    assert content.count(b"cnumpy._core.multiarray\n") == 1
    path = tmp_path / "a.bin"
    path.write_bytes(content.replace(b"numpy._core.multiarray", module.encode()))
    images, same = face_bin.read(str(path))
    assert images == [b"a", b"b"] and same.tolist() == [True]


def test_other_scalars_are_refused(tmp_path):
    path = tmp_path / "a.bin"
    content = pickle.dumps(([b"a", b"b"], [np.bytes_(b"text")]), protocol=2)
    path.write_bytes(content)
    with pytest.raises(DataError, match="refused: it wants to load a scalar of"):
        face_bin.read(str(path))


@pytest.mark.parametrize("name", ["eval", "getattr", "__import__"])
def test_builtins_are_refused(tmp_path, name):
    path = tmp_path / "a.bin"
    path.write_bytes(b"cbuiltins\n" + name.encode() + b"\n.")
    with pytest.raises(DataError, match=f"it wants to load builtins.{name}"):
        face_bin.read(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "refused: Ran out of input"),
        (b"\x80\x04garbage", "a.bin: "),
        (pickle.dumps([1, 2, 3]), "expected a pickle of .encoded images, bools."),
        (pickle.dumps(([1, 2], [True])), "an image is a int"),
        (pickle.dumps(([b"a"], [True])), "found 1 images and 1 pairs"),
        (pickle.dumps(([], [])), "found 0 images and 0 pairs"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    (tmp_path / "a.bin").write_bytes(content)
    with pytest.raises(DataError, match=message):
        face_bin.read(str(tmp_path / "a.bin"))
