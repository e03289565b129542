"""`data check` of face sets: counts, what is missing, what cannot be decoded."""

import pytest

from tests import layouts as fixtures
from tests.pictures import picture
from trainers import data
from trainers.datasets import base
from trainers.datasets.faces import checks


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_lfw(tmp_path):
    fixtures.lfw(tmp_path)
    told = data.check_dataset("lfw", str(tmp_path))
    assert "images         5 images,      3 classes" in told
    assert "images: 5 images; the protocol has 13,233." in told
    assert "pairs.txt: 3 pairs; the protocol has 6,000." in told


def test_bin_files(tmp_path, monkeypatch):
    fixtures.face_bin(tmp_path / "own.bin")
    told = data.check_dataset("face_bin", str(tmp_path / "own.bin"))
    assert "own.bin: 4 pairs, 2 of one person, 2 of two" in told
    assert told.endswith("All is there, as the protocol counts it.")
    fixtures.face_bin(tmp_path / "cfp_fp.bin")
    told = data.check_dataset("face_bin", str(tmp_path))
    assert "cfp_fp.bin: 4 pairs; the protocol has 7,000." in told and "own.bin: 4 pairs, 2" in told
    with pytest.raises(base.DataError, match="expected a .bin file, or a folder of some"):
        data.check_dataset("face_bin", str(tmp_path / "none"))


def test_ijbc(tmp_path, monkeypatch):
    fixtures.ijbc(tmp_path)
    (tmp_path / "loose_crop").mkdir()
    for number in (1, 2, 3, 4):
        content = picture("jpeg", seed=number) if number != 3 else b"no image"
        (tmp_path / "loose_crop" / f"{number}.jpg").write_bytes(content)
    told = data.check_dataset("ijbc", str(tmp_path))
    assert "5 images; the protocol has 469,375." in told
    assert "loose_crop lacks 1 of the images: 5.jpg." in told
    assert "unreadable: loose_crop/3.jpg" in told
    monkeypatch.setattr(checks, "_IJBC", {"images": 5, "templates": 3, "pairs": 2})
    for number in (3, 5):
        (tmp_path / "loose_crop" / f"{number}.jpg").write_bytes(picture("jpeg", seed=9))
    told = data.check_dataset("ijbc", str(tmp_path))
    assert told.endswith("All is there, as the protocol counts it.")


def test_recordio(tmp_path):
    fixtures.recordio(tmp_path)
    told = data.check_dataset("recordio", str(tmp_path))
    assert "3 images, 2 classes; 3 decoded" in told and "unreadable: record 2" in told
    whole = (tmp_path / "train.rec").read_bytes()
    (tmp_path / "train.rec").write_bytes(whole[:-40])
    assert "record 3 is damaged or cut short" in data.check_dataset("recordio", str(tmp_path))


def test_other_names_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        base.DataError, match="market1501.*lfw, face_bin, ijbc, recordio; found 'a'"
    ):
        data.check_dataset("a", str(tmp_path))
