import os

import numpy as np
import pytest
import tensorflow as tf

from tests import disks, handwriting, processes
from tests.pictures import picture
from trainers import data, datasets
from trainers.datasets import base, tfrecord


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    """Four classes of three images of 9 x 7 to 109 x 107 pixels."""
    for label in range(4):
        folder = tmp_path / "data" / f"class{label}"
        folder.mkdir(parents=True)
        for number in range(3):
            size = (9 + 50 * number, 7 + 50 * number)
            (folder / f"{number}.png").write_bytes(picture(size=size, seed=label))
    return tmp_path / "data"


def _shards(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".tfrecord")


def test_converted_images_are_the_folder_again(root, tmp_path):
    output = tmp_path / "shards"
    told = data.convert(str(root), output=str(output))
    assert told == f"Wrote 12 images of 4 classes in 1 shards.\nAll is in {output}."
    config = {"image_size": 8, "test_fraction": 0.5}
    before = datasets.load({"name": "folder", "path": str(root), **config})
    after = datasets.load({"name": "tfrecord", "path": str(output), **config})
    for split in ("train", "test"):
        expected, found = getattr(before, split), getattr(after, split)
        assert found.class_names == expected.class_names
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.images(), expected.images())


def test_a_full_disk_is_told_in_one_sentence_and_no_work_is_lost(root, tmp_path):
    output = tmp_path / "shards"
    with disks.full_beyond(1000), pytest.raises(OSError) as error:
        data.convert(str(root), output=str(output))
    assert str(error.value).startswith(f"{tmp_path} cannot be written to: File too large. Make")
    assert data.convert(str(root), output=str(output)).startswith("Wrote 12 images")


def test_shards_are_of_about_the_size_asked_for(root, tmp_path):
    output = tmp_path / "shards"
    size = sum(path.stat().st_size for path in root.glob("*/*.png"))
    data.convert(str(root), output=str(output), shard_bytes=size // 3)
    names = _shards(output)
    assert names == [f"images-{shard:05d}-of-{len(names):05d}.tfrecord" for shard in range(4)]
    assert all((output / f"{name}.index.npz").exists() for name in names)
    assert len(tfrecord.collect(str(output)).labels) == 12


def test_records_hold_bytes_label_class_and_path(root, tmp_path):
    data.convert(str(root), output=str(tmp_path / "shards"))
    (shard,) = _shards(tmp_path / "shards")
    record = next(iter(tf.data.TFRecordDataset(str(tmp_path / "shards" / shard)))).numpy()
    feature = tf.train.Example.FromString(record).features.feature
    assert feature["image"].bytes_list.value[0] == (root / "class0" / "0.png").read_bytes()
    assert feature["label"].int64_list.value == [0]
    assert feature["class"].bytes_list.value == [b"class0"]
    assert feature["path"].bytes_list.value == [os.fsencode(os.path.join("class0", "0.png"))]


def test_convert_skips_and_tells_unreadable_images(root, tmp_path):
    (root / "class1" / "bad.png").write_text("no image")
    told = data.convert(str(root), output=str(tmp_path / "shards"))
    assert "skipped 1 unreadable of 13 images" in told and "bad.png" in told
    assert "Wrote 12 images" in told


def test_convert_does_not_overwrite(root, tmp_path):
    (tmp_path / "shards").mkdir()
    with pytest.raises(base.DataError, match="exists and is not overwritten"):
        data.convert(str(root), output=str(tmp_path / "shards"))
    assert not list((tmp_path / "shards").iterdir())


def test_check_of_a_good_folder(root):
    told = data.check(str(root)).splitlines()
    assert told[0] == f"{root}: 12 images of 4 classes, 0 unreadable."
    assert told[1] == "Images of a class: 3 to 3, median 3."
    assert told[2] == "Shorter side: 7 to 107 pixels."
    histogram = {tuple(line.split()[:3]): int(line.split()[3]) for line in told[3:-1]}
    assert histogram[("5", "-", "8")] == histogram[("65", "-", "128")] == 4
    assert sum(histogram.values()) == 12
    assert told[-1] == "Nothing is wrong."


def test_check_tells_what_is_wrong(root):
    (root / "class0" / "bad.png").write_text("no image")
    for name, content in (("single", picture()), ("broken", b"no image")):
        (root / name).mkdir()
        (root / name / "a.jpg").write_bytes(content)
    (root / "none").mkdir()
    told = data.check(str(root))
    assert "2 unreadable" in told
    assert f"unreadable: {root / 'class0' / 'bad.png'}: " in told
    assert "1 sub-folders hold no images: none" in told
    assert "1 classes have no readable image: broken." in told
    assert "1 classes have one image, which has no other to match: single." in told


def test_check_tells_of_folders_of_folders(root, tmp_path):
    (tmp_path / "all").mkdir()
    for name in "abcd":
        os.symlink(root, tmp_path / "all" / name)
    told = data.check(str(tmp_path / "all")).splitlines()
    assert told[-2] == "Wrong or odd:"
    assert "found folders of folders in 4 of them: a, b, c, d. All images of a count" in told[-1]


@pytest.mark.parametrize(
    "kept, message", [(1, "not enough to train"), (3, "--config.dataset.test_path=PATH")]
)
def test_check_tells_of_too_few_classes(root, kept, message):
    for label in range(kept, 4):
        (root / f"class{label}").rename(root.parent / f"class{label}")
    assert message in data.check(str(root))


def test_alphabets_of_handwriting_are_looked_at_and_packed_by_character(tmp_path):
    handwriting.alphabets(tmp_path / "drawn", names=["Greek", "Latin"])
    root, output = str(tmp_path / "drawn"), str(tmp_path / "shards")
    assert "18 images of 6 classes, 0 unreadable" in data.check(root, dataset="omniglot")
    data.convert(root, output=output, dataset="omniglot")
    assert {"Greek/character01", "Latin/character03"} <= {*tfrecord.collect(output).class_names}


def test_check_of_shards(root, tmp_path):
    output = tmp_path / "shards"
    data.convert(str(root), output=str(output))
    told = data.check(str(output))
    assert "12 images of 4 classes, 0 unreadable." in told and "Nothing is wrong." in told
    assert data.check(str(output / _shards(output)[0])).splitlines()[1:] == told.splitlines()[1:]


def test_check_of_unreadable_images_alone(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("no image")
    told = data.check(str(tmp_path))
    assert "2 images of 2 classes, 2 unreadable." in told
    assert "2 classes have no readable image" in told


def test_commands_from_the_shell(root, tmp_path):
    output = tmp_path / "shards"
    done = processes.run("-m", "trainers.data", "convert", f"--path={root}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert "Wrote 12 images of 4 classes" in done.stdout
    assert f"--config.dataset.path={output}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "error: expected `check` or `convert`"),
        (("chek", "--path=a"), "error: expected `check` or `convert`"),
        # Slow: it imports TensorFlow first.
        pytest.param(
            *(("check", "--path=none"), "error: Expected a folder"), marks=pytest.mark.slow
        ),
    ],
)
def test_commands_that_cannot_be(arguments, message):
    done = processes.run("-m", "trainers.data", *arguments)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert any(line.startswith(message) for line in done.stderr.splitlines())
