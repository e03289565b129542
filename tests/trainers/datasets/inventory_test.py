import copy

import numpy as np
import pytest

from tests.pictures import picture
from trainers import data, datasets
from trainers.datasets import base, inventory


@pytest.fixture
def root(tmp_path):
    """Six classes of three images."""
    for label in range(6):
        for number in range(3):
            _add(tmp_path / "data", f"class{label}", f"{number}.png", seed=10 * label + number)
    return tmp_path / "data"


def _add(root, class_name, file, *, seed):
    (root / class_name).mkdir(parents=True, exist_ok=True)
    (root / class_name / file).write_bytes(picture("png", size=(9 + seed % 5, 9), seed=seed))


def _taken(path, name="folder", **changes):
    config = {"name": name, "path": str(path), "image_size": 8, **changes}
    return inventory.take(datasets.load(config))


def _converted(root, output):
    data.convert(str(root), output=str(output))
    return output


def test_a_copy_elsewhere_is_the_same(root, tmp_path):
    before = _taken(root)
    root.rename(tmp_path / "moved")
    after = _taken(f"{tmp_path}/moved/")
    assert after == before and inventory.changes(before, after) == ""
    assert inventory.checksum(before) == inventory.checksum(after)


@pytest.mark.parametrize("name", ["folder", "tfrecord"])
def test_every_change_is_named(name, root, tmp_path):
    packed = name == "tfrecord"
    before = _taken(_converted(root, tmp_path / "old") if packed else root, name)
    held_out = before["parts"]["test"]["classes"]
    trained = before["parts"]["train"]["classes"]
    _add(root, "new", "0.png", seed=100)
    _add(root, trained[0], "more.png", seed=101)
    (root / trained[1]).rename(tmp_path / "gone")
    path = _converted(root, tmp_path / "now") if packed else root
    after = _taken(path, name, test_classes=held_out)
    assert after["parts"]["test"]["classes"] == held_out
    assert inventory.changes(before, after) == (
        f"added: new; gone: {trained[1]}; with other examples: {trained[0]} (3 before, 4 now)"
    )
    assert inventory.checksum(before) != inventory.checksum(after)


@pytest.mark.parametrize("name", ["folder", "tfrecord"])
def test_an_image_of_other_size_is_another_example(name, root, tmp_path):
    packed = name == "tfrecord"
    before = _taken(_converted(root, tmp_path / "old") if packed else root, name)
    (root / "class0" / "1.png").write_bytes(picture("png", size=(30, 30), seed=1))
    after = _taken(_converted(root, tmp_path / "now") if packed else root, name)
    assert inventory.changes(before, after) == "with other examples: class0 (3 before, 3 now)"


def test_classes_that_move_between_parts(root):
    before = _taken(root)
    after = copy.deepcopy(before)
    after["parts"] = {"train": before["parts"]["test"], "test": before["parts"]["train"]}
    trained = ", ".join(before["parts"]["train"]["classes"])
    assert f"moved from train to test: {trained}" in inventory.changes(before, after)


def test_many_names_are_counted():
    def of(names):
        split = base.Split(np.zeros([len(names), 2, 2, 1], np.uint8), range(len(names)), names)
        return inventory.take(base.Dataset("own", split, split, None, None, (2, 2, 1), ""))

    few, many = of(("a",)), of(("a", *(f"b{number}" for number in range(8))))
    assert inventory.changes(few, many) == "added: b0, b1, b2, b3, b4 and 3 more"
    assert inventory.changes(of(("a", "b")), of(("b", "a"))) == "the same classes in another order"
    assert inventory.names_of(few, "query", "test") == {"a"}


def test_classes_without_examples_are_in_no_part():
    split = base.Split(np.zeros([1, 2, 2, 1], np.uint8), [1], ("none", "one"))
    found = inventory.take(base.Dataset("own", split, split, split, split, (2, 2, 1), ""))
    assert list(found["parts"]) == ["train", "test", "query", "gallery"]
    assert inventory.names_of(found, "train") == {"one"}


def test_classes_of_one_name_are_kept_apart():
    def of(labels):
        split = base.Split(np.zeros([3, 2, 2, 1], np.uint8), labels, ("same", "same"))
        return inventory.take(base.Dataset("own", split, split, None, None, (2, 2, 1), ""))

    assert "same (6 before, 6 now)" in inventory.changes(of([0, 0, 1]), of([0, 1, 1]))


@pytest.mark.parametrize("name", ["glyphs", "digits"])
def test_drawn_sets_stay_the_same(name):
    first, second = (inventory.take(datasets.load({"name": name})) for _ in range(2))
    assert first == second and first["name"] == name
