"""Protocols of faces: what flags ask for, pairs, templates of IJB-C, people among strangers."""

import os
import pickle

import keras
import numpy as np
import pytest
from PIL import Image

from circle_tf import backbones
from tests import layouts as fixtures
from tests.pictures import picture
from tests.trainers.evaluation.face_images_test import SIDE, turned
from tests.trainers.outputs.report_test import finished_run
from trainers.cli import commands
from trainers.datasets import base
from trainers.evaluation import face_images, faces
from trainers.outputs import report, workdir


def test_nothing_asked_is_nothing_done():
    assert faces.protocols() == {}


def test_names_are_those_of_files_and_folders():
    asked = faces.protocols(pairs=["a/lfw.bin", "b/lfw_folder/"], probes="p", distractors="d")
    assert list(asked) == ["lfw", "lfw_folder", "identification"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"probes": "a"}, "wants both --probes and --distractors"),
        ({"distractors": "a"}, "wants both"),
        ({"pairs": ["a/lfw.bin", "b/lfw.bin"]}, "Two verification sets are called 'lfw'"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(commands.ConfigError, match=message):
        faces.protocols(**flags)


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
    found = faces.verify_pairs(identity_model(), str(tmp_path / "own.bin"))
    assert found["accuracy"] == 1.0 and found["tar_at_far_0.001"] == 1.0
    assert (found["genuine"], found["impostors"]) == (10, 10)


def test_a_model_that_sees_nothing_is_at_chance(tmp_path):
    write_bin(tmp_path / "own.bin")
    pixels = keras.Input((8, 8, 3))
    blind = keras.Model(pixels, keras.layers.Flatten()(pixels * 0 + 1))
    assert faces.verify_pairs(blind, str(tmp_path / "own.bin"))["accuracy"] == 0.5


def test_lfw_embeds_each_picture_once_by_its_pairs(tmp_path):
    fixtures.lfw(tmp_path)
    lines = ["10\t1", *["Ann_Li\t1\t2"] * 5, *["Ann_Li\t1\tBo\t1"] * 5]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    for name, seed in (("Ann_Li/Ann_Li_0001", 1), ("Ann_Li/Ann_Li_0002", 1), ("Bo/Bo_0001", 2)):
        path = tmp_path / "lfw" / f"{name}.jpg"
        path.write_bytes(picture("jpeg", size=(20, 20), seed=seed))
    found = faces.verify_pairs(identity_model(16), str(tmp_path))
    assert (found["genuine"], found["impostors"], found["accuracy"]) == (5, 5, 1.0)


def test_bad_sets_of_pairs_are_refused(tmp_path):
    fixtures.face_bin(tmp_path / "few.bin", pairs=4)
    with pytest.raises(base.DataError, match="a multiple of 10 .*found 2 pairs of one person"):
        faces.verify_pairs(identity_model(), str(tmp_path / "few.bin"))
    with pytest.raises(base.DataError, match="expected pairs.txt in"):
        faces.verify_pairs(identity_model(), str(tmp_path / "none"))
    images = [picture(size=(8, 8)), b"no image"] * 10
    (tmp_path / "bad.bin").write_bytes(pickle.dumps((images, [True, False] * 5)))
    with pytest.raises(base.DataError, match="bad.bin: picture 1 cannot be read"):
        faces.verify_pairs(identity_model(), str(tmp_path / "bad.bin"))


def test_evaluation_of_a_run_tells_the_pairs_too(tmp_path, capsys):
    files = finished_run(tmp_path / "run")
    backbones.build("conv4", (8, 8, 1)).save(files.model)
    write_bin(tmp_path / "agedb_30.bin")
    protocols = faces.protocols(pairs=[str(tmp_path / "agedb_30.bin")])
    report.evaluate_run(files.path, protocols=protocols)
    found = workdir.read_json(files.evaluation)["agedb_30"]
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("agedb-30")]
    assert line.split()[1] == f"{found['accuracy']:.3f}"
    start = lines.index(line)
    assert {len(row) for row in lines[start - 1 : start + 1]} == {len(line)}
    assert np.isfinite(found["tar_at_far_0.001"])


PEOPLE = (0, 0, 1, 1, 2)  # of templates 10 to 14, two pictures each


def person(number):
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    phase = 2.1 * number
    waves = [np.sin(9 * x + phase + k) * np.cos(7 * y - phase * k) for k in range(3)]
    return np.rint(127 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def pixels_model(side=28):
    """Pixels themselves are the embedding."""
    pixels = keras.Input((side, side, 3))
    return keras.Model(pixels, keras.layers.Flatten()(pixels - 127.5))


def write_templates(root):
    """Two pictures of each template, each turned another way, and all pairs of templates."""
    (root / "meta").mkdir(parents=True)
    (root / "loose_crop").mkdir()
    media, points, turns = [], [], np.random.default_rng(0)
    for number in range(2 * len(PEOPLE)):
        name, template = f"{number + 1}.jpg", 10 + number // 2
        picture, places = turned(
            person(PEOPLE[number // 2]),
            scale=turns.uniform(0.8, 1.6),
            degrees=turns.uniform(-90, 90),
            shift=complex(*turns.uniform(80, 140, 2)),
        )
        Image.fromarray(picture).save(root / "loose_crop" / name, quality=95)
        media.append(f"{name} {template} {number}")
        points.append(f"{name} {' '.join(f'{value:.2f}' for value in places.ravel())} 0.99")
    pairs = [
        f"{10 + i} {10 + j} {int(PEOPLE[i] == PEOPLE[j])}"
        for i in range(len(PEOPLE))
        for j in range(i)
    ]
    for name, lines in (
        ("ijbc_face_tid_mid.txt", media),
        ("ijbc_name_5pts_score.txt", points),
        ("ijbc_template_pair_label.txt", pairs),
    ):
        (root / "meta" / name).write_text("\n".join(lines) + "\n")


def test_templates_of_a_person_are_found(tmp_path, monkeypatch):
    write_templates(tmp_path / "IJBC")
    found = faces.verify_templates(pixels_model(), str(tmp_path))
    assert found["tar_at_far_1e-06"] == 1.0
    assert (found["templates"], found["pairs"]) == (5, 10)
    # The same without alignment fails, or else this test would tell nothing.
    resized = face_images.Pictures
    monkeypatch.setattr(face_images, "Pictures", lambda names, points: resized(names))
    assert faces.verify_templates(pixels_model(), str(tmp_path))["tar_at_far_1e-06"] < 1.0


def test_bad_sets_of_templates_are_told(tmp_path):
    write_templates(tmp_path)
    wide = keras.Sequential([keras.Input((8, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(base.DataError, match="the model takes 8 x 4 pixels"):
        faces.verify_templates(wide, str(tmp_path))
    (tmp_path / "loose_crop" / "3.jpg").write_bytes(b"no picture")
    with pytest.raises(base.DataError, match="3.jpg cannot be read: .*check --dataset=ijbc"):
        faces.verify_templates(pixels_model(), str(tmp_path))
    (tmp_path / "loose_crop" / "2.jpg").unlink()
    with pytest.raises(base.DataError, match="2.jpg cannot be read"):
        faces.verify_templates(pixels_model(), str(tmp_path))


def write_people(root, *, people=3, others=5):
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
    write_people(tmp_path)
    (tmp_path / "others" / "list.txt").write_text("no picture")
    folders = (str(tmp_path / "probes"), str(tmp_path / "others"))
    found = faces.identify(identity_model(), *folders)
    counts = {"pairs": 6, "distractors": 5}
    assert found == {"rank_1": 1.0, "rank_10": 1.0, "tar_at_far_1e-06": 1.0, **counts}


def test_a_stranger_with_the_same_picture_comes_first(tmp_path):
    write_people(tmp_path)
    same = picture("png", size=(8, 8), seed=0)
    (tmp_path / "others" / "twin.png").write_bytes(same)
    folders = (str(tmp_path / "probes"), str(tmp_path / "others"))
    found = faces.identify(identity_model(), *folders)
    assert found["rank_1"] == pytest.approx(4 / 6) and found["rank_10"] == 1.0
    assert found["tar_at_far_1e-06"] <= 4 / 6


def test_bad_folders_are_told(tmp_path):
    write_people(tmp_path, people=0)
    os.makedirs(tmp_path / "lonely" / "one")
    (tmp_path / "lonely" / "one" / "a.png").write_bytes(picture())
    others = str(tmp_path / "others")
    with pytest.raises(base.DataError, match="lonely: expected people with two pictures"):
        faces.identify(identity_model(), str(tmp_path / "lonely"), others)
    write_people(tmp_path / "again")
    probes = str(tmp_path / "again" / "probes")
    with pytest.raises(base.DataError, match="expected pictures of other people; found none"):
        faces.identify(identity_model(), probes, str(tmp_path / "none"))
    (tmp_path / "others" / "3.jpg").write_bytes(b"no picture")
    with pytest.raises(base.DataError, match="3.jpg cannot be read: .*check --path="):
        faces.identify(identity_model(), probes, others)
