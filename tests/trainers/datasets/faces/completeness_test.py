"""Face data: pairs, pickles that may not run anything, templates, RecordIO."""

import os
import pickle

import pytest

from tests import layouts as fixtures
from trainers.datasets import DataError
from trainers.datasets.faces import face_bin, ijbc, lfw, recordio
from trainers.datasets.published import layouts


@pytest.mark.parametrize("arrays", [False, True])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_bin_sets_are_read(tmp_path, arrays, protocol):
    path = tmp_path / "lfw.bin"
    fixtures.face_bin(path, arrays=arrays, protocol=protocol)
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


def test_lfw_pairs_and_check(tmp_path):
    fixtures.lfw(tmp_path)
    first, second, same = lfw.read_pairs(str(tmp_path))
    assert first[0] == "lfw/Ann_Li/Ann_Li_0001.jpg" and second[2].endswith("Cy_O'Neil_0001.jpg")
    assert same.tolist() == [True, True, False]
    told = "\n".join(layouts.check(lfw.read(str(tmp_path))))
    assert "images         5 images,      3 classes" in told
    assert "pairs.txt: 3 pairs; the protocol has 6,000." in told
    assert "images: 5 images; the protocol has 13,233." in told
    os.remove(tmp_path / "lfw" / "Bo" / "Bo_0002.jpg")
    assert any(
        "1 images that are not there: lfw/Bo/Bo_0002.jpg" in p
        for p in lfw.read(str(tmp_path)).problems
    )
    (tmp_path / "pairs.txt").write_text("10 300\nAnn_Li 1\n")
    with pytest.raises(DataError, match="line 2 of pairs.txt is neither"):
        lfw.read_pairs(str(tmp_path))


def test_ijbc_lists(tmp_path):
    fixtures.ijbc(tmp_path)
    found = ijbc.read(str(tmp_path))
    assert found.files == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert found.templates.tolist() == [1, 1, 2, 3, 3]
    assert found.media.tolist() == [10, 11, 12, 13, 13]
    assert found.points.shape == (5, 5, 2) and found.points[0, 1].tolist() == [2.5, 3.5]
    assert (found.first.tolist(), found.second.tolist()) == ([1, 1], [2, 3])
    assert found.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ijbc_template_pair_label.txt", "1 9 1\n", "compares 1 templates that .* not have: 9"),
        (
            "ijbc_template_pair_label.txt",
            "1 x 1\n",
            "must have three whole numbers in each line: .*x",
        ),
        ("ijbc_template_pair_label.txt", "1 2\n", "three whole numbers in each line; found 2"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1\n", "line 1 of .* has not 1 name and 2 numbers"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1 10\n", "must list the same images in the same order"),
    ],
)
def test_ijbc_lists_that_do_not_fit(tmp_path, file, content, message):
    fixtures.ijbc(tmp_path)
    (tmp_path / "meta" / file).write_text(content)
    with pytest.raises(DataError, match=message):
        ijbc.read(str(tmp_path))


@pytest.mark.parametrize("header", [False, True])
def test_recordio_is_read_by_number(tmp_path, header):
    contents = fixtures.recordio(tmp_path, header=header)
    with recordio.RecordIO(str(tmp_path)) as records:
        assert len(records) == 3 and records.numbers == [1, 2, 3]
        for number, label in ((3, 7), (1, 5), (2, 5)):
            assert records.read(number) == (contents[number - 1], label)
        with pytest.raises(DataError, match="there is no record 99"):
            records.read(99)
        if header:
            with pytest.raises(DataError, match="record 4 holds no image"):
                records.read(4)


def test_recordio_that_was_cut_short(tmp_path):
    fixtures.recordio(tmp_path)
    path = tmp_path / "train.rec"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with recordio.RecordIO(str(tmp_path)) as records:
        records.read(1)
        with pytest.raises(DataError, match="record 3 is damaged or cut short: download it again"):
            records.read(3)
    index = (tmp_path / "train.idx").read_text()
    (tmp_path / "train.idx").write_text(index.replace("2\t", "9\t", 1))
    with pytest.raises(DataError, match="lacks 1 of 3 images, the first is 2"):
        recordio.RecordIO(str(tmp_path))
    (tmp_path / "train.idx").write_text("1\n")
    with pytest.raises(DataError, match="expected lines of two numbers; found '1"):
        recordio.RecordIO(str(tmp_path))
    os.remove(tmp_path / "train.idx")
    with pytest.raises(DataError, match="expected the file .*train.idx"):
        recordio.RecordIO(str(tmp_path))


def test_recordio_of_other_bytes(tmp_path):
    fixtures.recordio(tmp_path)
    path = tmp_path / "train.rec"
    path.write_bytes(b"\0" + path.read_bytes()[1:])
    with pytest.raises(DataError, match="record 0 is damaged"):
        recordio.RecordIO(str(tmp_path))
