"""Published data sets: tiny copies are read as they lie, and what is wrong with them is told."""

import os
import shutil

import numpy as np
import pytest

from tests import layouts as fixtures
from trainers import data, datasets
from trainers.datasets import DataError
from trainers.datasets.published import layouts

FOLDERS = {
    "market1501": "Market-1501-v15.09.15",
    "msmt17": "MSMT17_V1",
    "cub200": "CUB_200_2011",
    "cars196": "",
    "sop": "Stanford_Online_Products",
    "inshop": "",
}
COUNTS = {  # Images and classes of each part, as the fixtures have them.
    "market1501": {"train": (4, 2), "query": (2, 2), "gallery": (7, 3)},
    "msmt17": {"train": (4, 2), "query": (2, 2), "gallery": (4, 2)},
    "cub200": {"train": (4, 2), "test": (4, 2)},
    "cars196": {"train": (4, 2), "test": (4, 2)},
    "sop": {"train": (4, 2), "test": (4, 2)},
    "inshop": {"train": (4, 2), "query": (3, 2), "gallery": (3, 2)},
}
names = pytest.mark.parametrize("name", datasets.LAYOUTS)


@pytest.fixture
def root(name, tmp_path):
    fixtures.WRITERS[name](tmp_path)
    return tmp_path


def _counts(layout):
    return {part: (len(p.files), len(set(p.classes))) for part, p in layout.parts.items()}


@names
def test_the_parts_are_found_from_the_folder_or_the_one_above(name, root):
    layout = datasets.read_layout(name, str(root))
    assert _counts(layout) == COUNTS[name]
    assert set(layout.expected) == set(layout.parts)
    again = datasets.read_layout(name, os.path.join(root, FOLDERS[name]))
    assert {n: p.files for n, p in again.parts.items()} == {
        n: p.files for n, p in layout.parts.items()
    }
    for part in layout.parts.values():
        assert all(os.path.isfile(os.path.join(layout.root, file)) for file in part.files)


@names
def test_they_load_as_data_sets(name, root):
    config = {"name": name, "path": str(root), "image_size": 16, "channels": 3}
    found = datasets.load(config)
    counts = COUNTS[name]
    assert (len(found.train), len(found.train.class_names)) == counts["train"]
    assert found.train.images([0]).shape == (1, 16, 16, 3) and found.image_shape == (16, 16, 3)
    if "query" in counts:
        assert (len(found.queries), len(found.gallery)) == (
            counts["query"][0],
            counts["gallery"][0],
        )
        assert found.queries.class_names == found.gallery.class_names
        matches = np.isin(found.queries.labels, found.gallery.labels)
        assert matches.all()
    else:
        assert (len(found.test), found.queries) == (counts["test"][0], None)
    assert not set(found.train.class_names) & set(found.test.class_names) or name == "msmt17"


@names
def test_check_tells_counts_and_what_is_not_there(name, root):
    layout = datasets.read_layout(name, str(root))
    file = layout.parts["train"].files[0]
    others = [f for f in layout.parts["train"].files if f != file]
    os.remove(os.path.join(layout.root, file))
    with open(os.path.join(layout.root, others[0]), "wb") as stream:
        stream.write(b"no image")
    told = data.check_dataset(name, str(root))
    images, classes = layout.expected["train"]
    assert f"train: {len(others) + (name != 'market1501'):,} images; the protocol has" in told
    assert f"the protocol has {images:,}." in told and f"the protocol has {classes:,}." in told
    assert f"train: unreadable: {others[0]}: " in told
    if name != "market1501":  # Its folders are its list.
        assert f"train: 1 files are not there: {file}." in told


@names
def test_a_complete_one_is_said_to_be(name, root, monkeypatch):
    layout = datasets.read_layout(name, str(root))
    right = layouts.Layout(name, layout.root, layout.parts, COUNTS[name])
    lines = layouts.check(right)
    assert lines[-1] == "All is there, as the protocol counts it."
    assert f"{COUNTS[name]['train'][0]:>7,} images" in lines[1]


@names
def test_a_wrong_folder_is_told(name, tmp_path):
    (tmp_path / "something.zip").touch()
    with pytest.raises(DataError, match=f"{name}: expected .*; found something.zip. Give the fold"):
        datasets.read_layout(name, str(tmp_path))
    with pytest.raises(DataError, match="no such folder"):
        datasets.read_layout(name, str(tmp_path / "none"))


def test_market_leaves_junk_out_and_keeps_distractors_in_the_gallery(tmp_path):
    fixtures.market1501(tmp_path)
    layout = datasets.read_layout("market1501", str(tmp_path))
    gallery = layout.parts["gallery"]
    assert sorted(set(gallery.classes)) == ["0000", "0001", "0005"]
    assert gallery.cameras == [1, 4, 1, 2, 6, 2, 3]
    assert layout.problems == [
        "bounding_box_train: left out 1 files whose names are not like 0002_c1s1_000451_03.jpg: "
        "copy of 2.jpg."
    ]
    sides = {"image_size": 8, "image_width": 4}
    found = datasets.load({"name": "market1501", "path": str(tmp_path), **sides})
    assert found.image_shape == found.gallery.images([0]).shape[1:] == (8, 4, 3)
    assert found.gallery.cameras.tolist() == gallery.cameras
    assert found.test.class_names == ("0001", "0005")


def unmatched(root, how):
    """Market-1501 whose queries have no match in the gallery."""
    fixtures.market1501(root)
    folder = root / "Market-1501-v15.09.15"
    for file in sorted((folder / "bounding_box_test").glob("000[15]_*")):
        start, camera = file.name[:5], file.name[5:7]
        changed = "c1" if start == "0001_" else "c2"
        start, camera = (start, changed) if how == "one camera" else ("1" + start[1:], camera)
        file.rename(file.parent / f"{start}{camera}{file.name[7:]}")
    return str(root)


@pytest.mark.parametrize("how", ["one camera", "no common class"])
def test_queries_that_nothing_matches_are_foretold(how, tmp_path):
    path = unmatched(tmp_path, how)
    words = "query: no image has one of its class by another camera in the gallery: nothing can be"
    assert words in data.check_dataset("market1501", path)
    config = {"name": "market1501", "path": path, "image_size": 8, "image_width": 4}
    assert words in datasets.load(config).report


def test_some_queries_that_nothing_matches_are_counted(tmp_path):
    fixtures.inshop(tmp_path)
    found = datasets.read_layout("inshop", str(tmp_path))
    gallery, last = found.parts["gallery"], found.parts["query"].classes[-1]
    gallery.classes[:] = [c if c != last else "another" for c in gallery.classes]
    lost = found.parts["query"].classes.count(last)
    assert (
        f"query: {lost} images have none of their class in the gallery." in layouts.check(found)[-1]
    )


def test_market_tells_of_a_folder_that_is_not_there(tmp_path):
    fixtures.market1501(tmp_path)
    shutil.rmtree(tmp_path / "Market-1501-v15.09.15" / "query")
    told = data.check_dataset("market1501", str(tmp_path))
    assert "The folder query is not there." in told
    with pytest.raises(DataError, match="the part query is empty. Look: python -m trainers.data"):
        datasets.load({"name": "market1501", "path": str(tmp_path)})


@pytest.mark.parametrize("version", [1, 2])
def test_msmt_trains_on_the_validation_list_too(tmp_path, version):
    fixtures.msmt17(tmp_path, version=version)
    layout = datasets.read_layout("msmt17", str(tmp_path))
    assert _counts(layout) == COUNTS["msmt17"]
    assert layout.parts["train"].cameras == [1, 2, 3, 15]
    assert layout.parts["gallery"].cameras == [1, 5, 2, 9]


def test_msmt_tells_of_odd_lines_and_lists_that_are_not_there(tmp_path):
    fixtures.msmt17(tmp_path)
    with open(tmp_path / "MSMT17_V1" / "list_train.txt", "a") as stream:
        stream.write("0000/odd.jpg x\n")
    layout = datasets.read_layout("msmt17", str(tmp_path))
    assert layout.problems == [
        "train: 1 lines are not like 0000/0000_045_12_0303morning_0006_2.jpg 0: 0000/odd.jpg x."
    ]
    os.remove(tmp_path / "MSMT17_V1" / "list_gallery.txt")
    with pytest.raises(DataError, match="expected the list list_gallery.txt"):
        datasets.read_layout("msmt17", str(tmp_path))


def test_cub_goes_by_classes_not_by_the_split_of_classification(tmp_path):
    fixtures.cub200(tmp_path)
    layout = datasets.read_layout("cub200", str(tmp_path))
    assert set(layout.parts["train"].classes) == {"001.Bird_1", "100.Bird_100"}
    with open(tmp_path / "CUB_200_2011" / "images.txt", "a") as stream:
        stream.write("99 a/b.jpg\n")
    assert (
        "1 numbers are in one of images.txt and"
        in datasets.read_layout("cub200", str(tmp_path)).problems[0]
    )


def test_cars_in_one_file(tmp_path):
    fixtures.cars196(tmp_path, one_file=True)
    layout = datasets.read_layout("cars196", str(tmp_path))
    assert _counts(layout) == COUNTS["cars196"]
    assert layout.parts["train"].files[0] == "car_ims/000001.jpg"


def test_cars_without_the_test_labels(tmp_path):
    fixtures.cars196(tmp_path)
    os.remove(tmp_path / "devkit" / "cars_test_annos_withlabels.mat")
    told = data.check_dataset("cars196", str(tmp_path))
    assert "cars_test_annos_withlabels.mat is not there, and so the images of cars_test" in told
    (tmp_path / "devkit" / "cars_train_annos.mat").write_bytes(b"not a mat file")
    with pytest.raises(DataError, match="expected annotations with the fields class and fname"):
        datasets.read_layout("cars196", str(tmp_path))


def test_sop_tells_of_odd_lines(tmp_path):
    fixtures.sop(tmp_path)
    path = tmp_path / "Stanford_Online_Products" / "Ebay_train.txt"
    path.write_text(path.read_text().replace("image_id ", "id ") + "half a line\n")
    assert datasets.read_layout("sop", str(tmp_path)).problems == [
        "Ebay_train.txt does not begin with 'image_id class_id super_class_id path': "
        "'id class_id super_class_id path'.",
        "Ebay_train.txt: 1 lines are not 'image_id class_id super_class_id path'.",
    ]


def test_inshop_in_one_folder_and_a_count_that_is_wrong(tmp_path):
    fixtures.inshop(tmp_path)
    (tmp_path / "Eval" / "list_eval_partition.txt").rename(tmp_path / "list_eval_partition.txt")
    (tmp_path / "Img" / "img").rename(tmp_path / "img")
    (tmp_path / "Img").rmdir()
    layout = datasets.read_layout("inshop", str(tmp_path))
    assert _counts(layout) == COUNTS["inshop"] and layout.problems == []
    path = tmp_path / "list_eval_partition.txt"
    path.write_text(path.read_text().replace("10\n", "11\n", 1))
    assert (
        "counts '11' images in its first line; it has 10"
        in datasets.read_layout("inshop", str(tmp_path)).problems[0]
    )


def test_unknown_names():
    with pytest.raises(DataError, match="Expected a data set of market1501, .*; found 'x'"):
        datasets.read_layout("x", ".")
