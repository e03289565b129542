"""Looking for wrong labels in a folder of digits, some of which lie in the wrong class."""

import csv
import os

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from circle_tf import backbones
from configs import digits, folder
from tests import processes
from trainers.cli import commands
from trainers.outputs import inspection, workdir


def finished_run(path, recipe=None):
    """A run with a net that was never trained: embeddings are near to pixels."""
    files = workdir.Workdir(str(path))
    files.claim(recipe or digits.get_config())
    keras.utils.set_random_seed(0)  # Not of every random net the nearest of an image is its like.
    backbones.build("conv4", (8, 8, 1)).save(files.model)
    workdir.write_json(files.run, {"step": 0})
    return files


@pytest.fixture
def planted(tmp_path):
    """300 digits in a folder per class, the paths of 10 of them in a wrong one."""
    images, labels = load_digits(return_X_y=True)
    wrong = set(np.random.default_rng(0).choice(300, 10, replace=False).tolist())
    paths = []
    for row, (image, label) in enumerate(zip(images[:300], labels[:300], strict=True)):
        label = (label + 3) % 10 if row in wrong else label
        path = tmp_path / "images" / f"d{label}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(path)
        paths += [str(path)] if row in wrong else []
    return str(tmp_path / "images"), set(paths)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_planted_errors_come_first_by_path(tmp_path, planted, capsys):
    images, paths = planted
    files = finished_run(tmp_path / "run")
    output = inspection.inspect_run(files.path, images=images)
    suspects = read_csv(os.path.join(output, "suspects.csv"))
    found = [suspect for suspect in suspects[:10] if suspect["image"] in paths]
    assert len(found) >= 8
    for suspect in found:  # The class that it was taken from is named.
        assert (int(suspect["other_class"][1]) + 3) % 10 == int(suspect["class"][1])
        assert os.path.basename(os.path.dirname(suspect["nearest_image"])) == suspect["other_class"]
    printed = capsys.readouterr().out
    assert f"{suspects[0]['image']}: {suspects[0]['class']}, looks like" in printed
    assert "300 examples of 10 classes of" in printed
    confused = read_csv(os.path.join(output, "confused_classes.csv"))
    assert sum(int(row["count"]) for row in confused) >= 10
    for name in ("suspects.png", "confused_classes.png"):
        with Image.open(os.path.join(output, name)) as sheet:
            assert sheet.width > 1000


def test_a_runs_own_examples_are_told_by_name_or_number(tmp_path, capsys):
    files = finished_run(tmp_path / "run")
    output = inspection.inspect_run(files.path, split="train", examples=900, shown=2)
    printed = capsys.readouterr().out
    assert "(--examples) of 4 classes to train on" in printed
    assert "has trained on them" in printed
    assert read_csv(os.path.join(output, "suspects.csv"))[0]["image"].startswith("example ")


def test_nothing_of_an_earlier_look_stays(tmp_path, planted):
    """Where nothing is suspect there is no sheet, and an older one is gone."""
    images, _ = planted
    files = finished_run(tmp_path / "run")
    output = inspection.inspect_run(files.path, images=images, output=str(tmp_path / "looked"))
    clean = tmp_path / "clean"
    for label, shade in (("a", 40), ("b", 200)):
        (clean / label).mkdir(parents=True)
        for row in range(4):
            image = np.zeros([8, 8], np.uint8)
            image[:, :4] = shade if label == "a" else 0
            image[:4] += np.uint8(shade if label == "b" else 0)
            image[row, 7] += 5
            Image.fromarray(image).save(clean / label / f"{row}.png")
    assert inspection.inspect_run(files.path, images=str(clean), output=output) == output
    assert read_csv(os.path.join(output, "confused_classes.csv")) == []
    assert not os.path.exists(os.path.join(output, "confused_classes.png"))


def test_one_class_is_an_error(tmp_path, planted):
    images, _ = planted
    files = finished_run(tmp_path / "run")
    os.rename(os.path.join(images, "d0"), tmp_path / "d0")
    (tmp_path / "one").mkdir()
    os.rename(tmp_path / "d0", tmp_path / "one" / "d0")
    with pytest.raises(commands.ConfigError, match="two classes or more.*found 1"):
        inspection.inspect_run(files.path, images=str(tmp_path / "one"))


# Slow: a process of its own, for what is tried above.
@pytest.mark.slow
def test_the_command(tmp_path, planted):
    images, _ = planted
    files = finished_run(tmp_path / "run", folder.get_config())
    said = processes.printed(
        *("-m", "trainers.inspect", f"--workdir={files.path}", f"--images={images}")
    )
    assert "most suspect" in said and f"Written to {files.path}/inspection." in said
