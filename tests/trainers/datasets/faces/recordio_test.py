"""RecordIO, read by number."""

import os

import pytest

from tests import layouts as fixtures
from trainers.datasets import DataError
from trainers.datasets.faces import recordio


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
