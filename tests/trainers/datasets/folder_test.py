import os

import numpy as np
import pytest
import tensorflow as tf

from tests.pictures import picture
from trainers import data, datasets
from trainers.datasets import base, folder


@pytest.fixture
def root(tmp_path):
    """Six classes of three images, of every format, nested and with upper-case suffixes."""
    for label in range(6):
        below = tmp_path / "data" / f"class{label}" / "deeper"
        below.mkdir(parents=True)
        (below / "a.PNG").write_bytes(picture("png", seed=label))
        (below.parent / "b.JPeG").write_bytes(picture("jpeg", seed=label + 10))
        (below.parent / "c.gif").write_bytes(picture("gif", seed=label + 20))
    (tmp_path / "data" / "class0" / "d.bmp").write_bytes(picture("bmp", mode="L"))
    return tmp_path / "data"


def _load(path, **changes):
    return datasets.load({"name": "folder", "path": str(path), "image_size": 8, **changes})


def test_classes_are_divided_and_labelled_from_zero(root):
    dataset = _load(root)
    assert len(dataset.train.class_names) == 4 and len(dataset.test.class_names) == 2
    names = {*dataset.train.class_names, *dataset.test.class_names}
    assert names == {f"class{label}" for label in range(6)}
    assert len(dataset.train) + len(dataset.test) == 19
    for split in (dataset.train, dataset.test):
        assert set(split.labels) == set(range(len(split.class_names)))
        for path, label in zip(split.examples, split.labels, strict=True):
            assert os.sep + split.class_names[label] + os.sep in path
    assert "4 classes to train on" in dataset.report and "2 classes to test on" in dataset.report


def test_images_are_decoded_when_asked_for(root):
    dataset = _load(root, channels=1)
    images = dataset.train.images([3, 0])
    assert images.shape == (2, 8, 8, 1) and dataset.image_shape == (8, 8, 1)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(dataset.train.images()[[3, 0]], images)
    assert dataset.train.images([]).shape == (0, 8, 8, 1)


def test_division_depends_on_the_names_alone(root, tmp_path):
    first = _load(root)
    root.rename(tmp_path / "moved")
    assert _load(tmp_path / "moved").test.class_names == first.test.class_names


def test_share_of_classes_held_out(root):
    assert len(_load(root, test_fraction=0.5).test.class_names) == 3


def test_classes_to_test_on_can_be_given(root):
    dataset = _load(root, test_path=str(root))
    assert len(dataset.train.class_names) == len(dataset.test.class_names) == 6
    assert "6 classes to test on are trained on too" in dataset.report


def test_unreadable_images_are_told_by_path_and_skipped(root, caplog):
    whole = picture("png", size=(90, 90))
    bad = [root / "class1" / "text.png", root / "class1" / "half.png", root / "class2" / "no.jpg"]
    bad[0].write_text("not an image")
    bad[1].write_bytes(whole[: len(whole) // 2])
    bad[2].write_bytes(b"")
    dataset = _load(root)
    assert len(dataset.train) + len(dataset.test) == 19
    assert "skipped 3 unreadable of 22 images" in dataset.report
    for path in bad:
        assert str(path) in dataset.report
        assert str(path) not in [*dataset.train.examples, *dataset.test.examples]


def test_class_without_a_readable_image_goes(root):
    (root / "class9").mkdir()
    (root / "class9" / "a.png").write_text("not an image")
    dataset = _load(root)
    assert "class9" not in dataset.train.class_names + dataset.test.class_names
    assert set(dataset.train.labels) == set(range(len(dataset.train.class_names)))


def test_all_unreadable_is_an_error(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_text("not an image")
    with pytest.raises(base.DataError, match=r"none of 2 images can be decoded.*x\.png: "):
        _load(tmp_path)


def test_verification_can_be_left_out(root):
    (root / "class1" / "text.png").write_text("not an image")
    assert "unreadable" not in _load(root, verify=False).report


@pytest.mark.parametrize("bad", ["a text", None])
def test_an_unreadable_image_that_was_not_verified_is_named(root, bad):
    path = root / "class1" / "text.png"
    path.write_text(bad) if bad else path.symlink_to(root / "none")
    (root / "class4" / "deeper" / "text.png").write_text("another")
    for part in ("train", "test"):
        split = getattr(_load(root, verify=False), part)
        first = next(str(file) for file in split.examples if file.endswith("text.png"))
        with pytest.raises(base.DataError, match=f"^{first} cannot be read: .*verify=True"):
            split.images()


def test_errors_that_no_image_causes_are_left_alone(root):
    with pytest.raises(tf.errors.InvalidArgumentError), _load(root).train.naming_unreadable():
        tf.reshape(tf.zeros([3]), [2])


def _count_looks(monkeypatch):
    from trainers.datasets import collection

    counts, inspect = [], collection.inspect

    def counted(found, *, rows, tell):
        counts.append(len(rows))
        return inspect(found, rows=rows, tell=tell)

    monkeypatch.setattr(collection, "inspect", counted)
    return counts


def test_readable_images_are_looked_at_once_until_they_change(root, monkeypatch):
    (root / "class1" / "text.png").write_text("not an image")
    counts = _count_looks(monkeypatch)
    _load(root)
    _load(root)
    changed = root / "class0" / "d.bmp"
    changed.write_bytes(b"no longer an image")
    assert "skipped 2 unreadable" in _load(root).report
    assert counts == [20, 1, 2]


def test_cache_that_cannot_be_written_or_read_is_no_obstacle(root, cache, monkeypatch):
    (cache / "circle-tf").write_text("a file where the folder should be")
    assert len(_load(root).train)
    (cache / "circle-tf").unlink()
    _load(root)
    (kept,) = (cache / "circle-tf" / "readable").iterdir()
    kept.write_bytes(b"spoilt")
    assert len(_load(root).train)


def test_users_without_a_home_folder(root, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # As it is for unknown users.
    monkeypatch.chdir(root)
    assert len(_load(root).train)
    assert sorted(os.listdir(root)) == [f"class{label}" for label in range(6)]


def test_hidden_and_other_files_are_left_out_and_counted(root):
    (root / ".git").mkdir()
    (root / ".git" / "a.png").write_bytes(picture())
    (root / "class0" / "._a.png").write_bytes(b"resource fork")
    (root / "class0" / "notes.txt").write_text("notes")
    (root / "class0" / "photo.tiff").write_bytes(b"RIFF")
    (root / "stray.png").write_bytes(picture())
    (root / "none").mkdir()
    dataset = _load(root)
    assert len(dataset.train) + len(dataset.test) == 19
    assert "1 sub-folders hold no images: none" in dataset.report
    for counted in ("1 .txt", "1 .tiff", "1 .png"):
        assert counted in dataset.report
    assert "unreadable" not in dataset.report


def test_links_that_lead_back_do_not_hang(root):
    (root / "class0" / "loop").symlink_to(root / "class0")
    assert len(folder.collect(str(root)).labels) == 19


def nested(root, names, *, below=("a", "b")):
    """Classes whose images lie in folders of theirs."""
    for name in names:
        for inner in below:
            (root / name / inner).mkdir(parents=True)
            for number in range(2):
                content = picture("png", seed=number)
                (root / name / inner / f"{number}.png").write_bytes(content)
    return root


def test_folders_of_folders_are_told_of(tmp_path):
    nested(tmp_path / "pets", ["cats", "dogs", "owls", "pigs"])
    nested(tmp_path / "pets", ["rats"], below=["a"])  # One folder may be how it was unpacked.
    found = _load(tmp_path / "pets")
    assert len(found.train.class_names) + len(found.test.class_names) == 5
    (line,) = (line for line in found.report.splitlines() if "folders of folders" in line)
    assert "in 4 of them: cats, dogs, owls, pigs." in line
    assert "images of cats count as one class, though they lie in its a, b." in line
    assert f"give {tmp_path / 'pets' / 'cats'} as the path" in line


@pytest.mark.parametrize("names", [["train"], ["train", "test"]])
def test_too_few_classes_that_are_folders_of_classes(names, tmp_path):
    with pytest.raises(base.DataError, match=f"folders of folders in {len(names)} of them: t"):
        _load(nested(tmp_path / "pets", names))


def test_folders_beside_images_of_a_class_are_no_matter(root):
    assert "folders of folders" not in _load(root).report


def test_dangling_link_is_unreadable(root):
    (root / "class0" / "gone.png").symlink_to(root / "nowhere.png")
    assert "skipped 1 unreadable" in _load(root).report


def test_classes_of_one_image_are_kept_and_told(root):
    (root / "single").mkdir()
    (root / "single" / "a.png").write_bytes(picture())
    dataset = _load(root)
    assert "single" in dataset.train.class_names + dataset.test.class_names
    assert "have one image" in dataset.report and "single" in dataset.report


def test_names_with_blanks_and_other_letters(tmp_path):
    for name in ("ä ö", "名前", "b%d", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ein bild ü.png").write_bytes(picture())
    dataset = _load(tmp_path)
    assert len(dataset.train.images()) + len(dataset.test.images()) == 4


def test_names_that_are_not_utf8(root):
    (root / "class0" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture())
    assert "20 images" in data.check(str(root))
    (root / os.fsdecode(b"na\xefve")).mkdir()
    with pytest.raises(base.DataError, match=r"must be UTF-8, found 1 .*: na\\xefve\. Rename"):
        folder.collect(str(root))


def test_no_such_folder(tmp_path):
    with pytest.raises(base.DataError, match="found no folder at .*missing"):
        _load(tmp_path / "missing")
    with pytest.raises(base.DataError, match="--config.dataset.path"):
        _load("")


def test_file_instead_of_a_folder(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    with pytest.raises(base.DataError, match="found a file at"):
        _load(tmp_path / "a.zip")


def test_empty_folder(tmp_path):
    with pytest.raises(base.DataError, match="found 0 sub-folders without images"):
        _load(tmp_path)


def test_images_without_classes(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        base.DataError, match="1 sub-folders without images and other files: 1 .png"
    ):
        _load(tmp_path)


def test_one_class(tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "a.png").write_bytes(picture())
    with pytest.raises(base.DataError, match="2 or more classes to train on, found 1: only"):
        _load(tmp_path)


@pytest.mark.parametrize("count, changes", [(3, {}), (6, {"test_fraction": 1.0})])
def test_too_few_classes_to_hold_any_out(root, count, changes):
    for label in range(count, 6):
        (root / f"class{label}").rename(root.parent / f"class{label}")
    with pytest.raises(
        base.DataError, match=f"found {count} classes.*--config.dataset.test_path=PATH"
    ):
        _load(root, **changes)
