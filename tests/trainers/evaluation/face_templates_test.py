"""IJB-C on a tiny copy: faces that only alignment makes alike."""

import keras
import numpy as np
import pytest
from PIL import Image

from tests.trainers.evaluation.alignment_test import SIDE, turned
from trainers.datasets import base
from trainers.evaluation import face_templates

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


def write(root):
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
    write(tmp_path / "IJBC")
    found = face_templates.verify(pixels_model(), str(tmp_path))
    assert found["tar_at_far_1e-06"] == 1.0
    assert (found["templates"], found["pairs"]) == (5, 10)
    # The same without alignment fails, or else this test would tell nothing.
    resized = face_templates.face_images.Pictures
    monkeypatch.setattr(
        face_templates.face_images, "Pictures", lambda names, points: resized(names)
    )
    assert face_templates.verify(pixels_model(), str(tmp_path))["tar_at_far_1e-06"] < 1.0


def test_bad_sets_are_told(tmp_path):
    write(tmp_path)
    wide = keras.Sequential([keras.Input((8, 4, 3)), keras.layers.Flatten()])
    with pytest.raises(base.DataError, match="the model takes 8 x 4 pixels"):
        face_templates.verify(wide, str(tmp_path))
    (tmp_path / "loose_crop" / "3.jpg").write_bytes(b"no picture")
    with pytest.raises(base.DataError, match="3.jpg cannot be read: .*check --dataset=ijbc"):
        face_templates.verify(pixels_model(), str(tmp_path))
    (tmp_path / "loose_crop" / "2.jpg").unlink()
    with pytest.raises(base.DataError, match="2.jpg cannot be read"):
        face_templates.verify(pixels_model(), str(tmp_path))
