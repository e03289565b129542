"""Verification of a model on `.bin` files and on LFW's list of pairs."""

import pickle

import keras
import numpy as np
import pytest

from circle_tf import backbones
from tests import layouts as fixtures
from tests.pictures import picture
from tests.trainers.evaluation.report_test import finished_run
from trainers.datasets import base
from trainers.evaluation import face_pairs, face_protocols, report
from trainers.training import workdir


def identity_model(size=8):
    """Pixels themselves are the embedding: equal pictures have a cosine of 1."""
    pixels = keras.Input((size, size, 3))
    return keras.Model(pixels, keras.layers.Flatten()(pixels - 127.5))


def write_bin(path, *, pairs=20):
    """Genuine pairs are one picture twice; impostors are two."""
    images, same = [], []
    for number in range(pairs):
        genuine = number % 2 == 0
        seeds = (number, number if genuine else number + 500)
        images += [picture("png", size=(8, 8), seed=seed) for seed in seeds]
        same.append(genuine)
    path.write_bytes(pickle.dumps((images, same), protocol=2))


def test_a_model_that_tells_pictures_apart_is_right_about_every_pair(tmp_path):
    write_bin(tmp_path / "own.bin")
    found = face_pairs.verify(identity_model(), str(tmp_path / "own.bin"))
    assert found["accuracy"] == 1.0 and found["tar_at_far_0.001"] == 1.0
    assert (found["genuine"], found["impostors"]) == (10, 10)


def test_a_model_that_sees_nothing_is_at_chance(tmp_path):
    write_bin(tmp_path / "own.bin")
    pixels = keras.Input((8, 8, 3))
    blind = keras.Model(pixels, keras.layers.Flatten()(pixels * 0 + 1))
    assert face_pairs.verify(blind, str(tmp_path / "own.bin"))["accuracy"] == 0.5


def test_lfw_embeds_each_picture_once_by_its_pairs(tmp_path):
    fixtures.lfw(tmp_path)
    lines = ["10\t1", *["Ann_Li\t1\t2"] * 5, *["Ann_Li\t1\tBo\t1"] * 5]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    for name, seed in (("Ann_Li/Ann_Li_0001", 1), ("Ann_Li/Ann_Li_0002", 1), ("Bo/Bo_0001", 2)):
        path = tmp_path / "lfw" / f"{name}.jpg"
        path.write_bytes(picture("jpeg", size=(20, 20), seed=seed))
    found = face_pairs.verify(identity_model(16), str(tmp_path))
    assert (found["genuine"], found["impostors"], found["accuracy"]) == (5, 5, 1.0)


def test_bad_sets_are_refused(tmp_path):
    fixtures.face_bin(tmp_path / "few.bin", pairs=4)
    with pytest.raises(base.DataError, match="a multiple of 10 .*found 2 pairs of one person"):
        face_pairs.verify(identity_model(), str(tmp_path / "few.bin"))
    with pytest.raises(base.DataError, match="expected pairs.txt in"):
        face_pairs.verify(identity_model(), str(tmp_path / "none"))
    images = [picture(size=(8, 8)), b"no image"] * 10
    (tmp_path / "bad.bin").write_bytes(pickle.dumps((images, [True, False] * 5)))
    with pytest.raises(base.DataError, match="bad.bin: picture 1 cannot be read"):
        face_pairs.verify(identity_model(), str(tmp_path / "bad.bin"))


def test_evaluation_of_a_run_tells_the_pairs_too(tmp_path, capsys):
    files = finished_run(tmp_path / "run")
    backbones.build("conv4", (8, 8, 1)).save(files.model)
    write_bin(tmp_path / "agedb_30.bin")
    protocols = face_protocols.asked_for(pairs=[str(tmp_path / "agedb_30.bin")])
    report.evaluate_run(files.path, protocols=protocols)
    found = workdir.read_json(files.evaluation)["agedb_30"]
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("agedb-30")]
    assert line.split()[1] == f"{found['accuracy']:.3f}"
    assert {len(row) for row in lines[lines.index(line) - 1 :]} == {len(line)}
    assert np.isfinite(found["tar_at_far_0.001"])
