"""People among strangers, in folders."""

import os

import pytest

from tests.pictures import picture
from tests.trainers.evaluation.face_pairs_test import identity_model
from trainers.datasets import base
from trainers.evaluation import face_identification


def write(root, *, people=3, others=5):
    """Each person has one picture twice, so that they are found before any stranger."""
    for number in range(people):
        folder = root / "probes" / f"person {number}"
        os.makedirs(folder)
        for name in ("a.png", "b.png"):
            (folder / name).write_bytes(picture("png", size=(8, 8), seed=number))
    os.makedirs(root / "others" / "sub")
    for number in range(others):
        path = root / "others" / ("sub" if number % 2 else "") / f"{number}.png"
        path.write_bytes(picture("png", size=(8, 8), seed=100 + number))


def test_people_are_found_before_strangers(tmp_path):
    write(tmp_path)
    (tmp_path / "others" / "list.txt").write_text("no picture")
    folders = (str(tmp_path / "probes"), str(tmp_path / "others"))
    found = face_identification.identify(identity_model(), *folders)
    counts = {"pairs": 6, "distractors": 5}
    assert found == {"rank_1": 1.0, "rank_10": 1.0, "tar_at_far_1e-06": 1.0, **counts}


def test_a_stranger_with_the_same_picture_comes_first(tmp_path):
    write(tmp_path)
    same = picture("png", size=(8, 8), seed=0)
    (tmp_path / "others" / "twin.png").write_bytes(same)
    folders = (str(tmp_path / "probes"), str(tmp_path / "others"))
    found = face_identification.identify(identity_model(), *folders)
    assert found["rank_1"] == pytest.approx(4 / 6) and found["rank_10"] == 1.0
    assert found["tar_at_far_1e-06"] <= 4 / 6


def test_bad_folders_are_told(tmp_path):
    write(tmp_path, people=0)
    os.makedirs(tmp_path / "lonely" / "one")
    (tmp_path / "lonely" / "one" / "a.png").write_bytes(picture())
    others = str(tmp_path / "others")
    with pytest.raises(base.DataError, match="lonely: expected people with two pictures"):
        face_identification.identify(identity_model(), str(tmp_path / "lonely"), others)
    write(tmp_path / "again")
    probes = str(tmp_path / "again" / "probes")
    with pytest.raises(base.DataError, match="expected pictures of other people; found none"):
        face_identification.identify(identity_model(), probes, str(tmp_path / "none"))
    (tmp_path / "others" / "3.jpg").write_bytes(b"no picture")
    with pytest.raises(base.DataError, match="3.jpg cannot be read: .*check --path="):
        face_identification.identify(identity_model(), probes, others)
