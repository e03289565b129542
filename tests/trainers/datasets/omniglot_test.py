import numpy as np
import pytest

from tests import handwriting
from trainers import datasets
from trainers.datasets import base, omniglot, one_shot_runs

NAMES = ("Greek", "Latin", "Korean", "Hebrew", "N_Ko")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omniglot")
    handwriting.alphabets(folder, names=NAMES, characters=2, drawings=2)
    return folder


def load(root, **changes):
    return datasets.load({"name": "omniglot", "path": str(root), "image_size": 21, **changes})


def _alphabets(split):
    return {name.partition("/")[0] for name in split.class_names}


@pytest.mark.parametrize("below", ["", "images_background"])
def test_whole_alphabets_are_held_out(root, below):
    found = load(root / below, channels=1)
    assert _alphabets(found.train) | _alphabets(found.test) == set(NAMES)
    assert len(_alphabets(found.test)) == 1 and not _alphabets(found.train) & _alphabets(found.test)
    assert (len(found.train), len(found.test)) == (16, 4)
    images = found.train.images()
    assert images.shape == (16, 21, 21, 1) and images.mean() > 200  # Black on white, as they are.


def test_a_run_keeps_the_alphabets_that_it_held_out(root):
    names = ("Latin/character01", "Latin/character02")
    assert load(root, test_classes=names).test.class_names == names


def test_alphabets_to_test_on_can_be_given(root, tmp_path):
    handwriting.alphabets(tmp_path, names=["Tifinagh"], characters=2, drawings=2)
    found = load(root, test_path=str(tmp_path))
    assert _alphabets(found.train) == set(NAMES) and _alphabets(found.test) == {"Tifinagh"}


def test_characters_turned_by_quarters_are_classes_to_train_on(root):
    plain, found = load(root), load(root, turned_classes=True)
    classes = len(plain.train.class_names)
    assert len(found.train) == 4 * len(plain.train) and len(found.test) == len(plain.test)
    assert len(set(found.train.class_names)) == 4 * classes
    images = plain.train.images()
    for turn in range(4):
        rows = slice(turn * len(images), (turn + 1) * len(images))
        turned = np.rot90(images, turn, axes=(1, 2))
        np.testing.assert_array_equal(found.train.images(np.arange(len(found.train))[rows]), turned)
        np.testing.assert_array_equal(found.train.labels[rows], plain.train.labels + turn * classes)
    assert len(set(found.train.identities)) == len(found.train)


def test_one_alphabet_alone_cannot_be_divided(tmp_path):
    handwriting.alphabets(tmp_path, names=["Greek"])
    with pytest.raises(base.DataError, match="others to hold out for testing, found Greek. Give"):
        load(tmp_path)


def test_folders_that_are_no_alphabets(tmp_path):
    with pytest.raises(base.DataError, match="found no folder at '.*none'"):
        load(tmp_path / "none")
    (tmp_path / "photos").mkdir()
    with pytest.raises(base.DataError, match="found the folders photos at"):
        omniglot.collect(str(tmp_path))


@pytest.fixture
def runs(tmp_path):
    handwriting.one_shot_runs(tmp_path / "all_runs", runs=2, ways=3)
    return tmp_path


@pytest.mark.parametrize("below", ["", "all_runs"])
def test_published_runs_are_found(runs, below):
    found = one_shot_runs.read(str(runs / below))
    assert [run.name for run in found] == ["run01", "run02"]
    for run in found:
        assert len(run.classes) == len(run.items) == 3 and sorted(run.truth) == [0, 1, 2]
        lines = (runs / "all_runs" / run.name / "class_labels.txt").read_text().split("\n")
        for item, of_class, line in zip(run.items, run.truth, lines, strict=False):
            assert line.split() == [
                file.removeprefix(f"{runs}/all_runs/") for file in (item, run.classes[of_class])
            ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run01/test/item01.png", "line 4: expected an item and its class .*found 'run01/test/it"),
        ("run01/test/item01.png run01/training/none.png", "1 drawings are not there: run01/train"),
    ],
)
def test_runs_that_are_not_whole(runs, line, message):
    with open(runs / "all_runs" / "run01" / "class_labels.txt", "a") as stream:
        stream.write(line + "\n")
    with pytest.raises(base.DataError, match=message):
        one_shot_runs.read(str(runs))


def test_no_runs(tmp_path):
    with pytest.raises(base.DataError, match="found none at .*--one_shot_runs=FOLDER"):
        one_shot_runs.read(str(tmp_path))
