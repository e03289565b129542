import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.pictures import picture
from trainers import data, datasets
from trainers.datasets import base, table

HEADING = ["path", "label"]


def write(path, rows, *, heading=None, delimiter=","):
    lines = [delimiter.join(map(str, row)) for row in [heading or HEADING, *rows]]
    with tf.io.gfile.GFile(str(path), "w") as stream:
        stream.write("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def root(tmp_path):
    """Two images of each of six classes, 9 x 7 pixels."""
    (tmp_path / "images").mkdir()
    for label in range(6):
        for number in range(2):
            content = picture(seed=2 * label + number)
            (tmp_path / "images" / f"{label}_{number}.png").write_bytes(content)
    return tmp_path


def rows_of(*cells):
    """A row for each image, with more cells that `fn(label, number)` gives."""
    return [
        [f"images/{label}_{number}.png", f"c{label}", *(cell(label, number) for cell in cells)]
        for label in range(6)
        for number in range(2)
    ]


def load(path, **changes):
    return datasets.load(
        {"name": "table", "path": str(path), "image_size": 7, "image_width": 9, **changes}
    )


def pixels(root, label, number):
    return np.asarray(Image.open(root / "images" / f"{label}_{number}.png"))


def test_classes_are_held_out_where_the_table_does_not_divide(root):
    found = load(write(root / "t.csv", rows_of()))
    assert len(found.train.class_names) == 4 and len(found.test.class_names) == 2
    folder = {"name": "folder", "path": str(root / "by_class"), "image_size": 7}
    for label in range(6):
        (root / "by_class" / f"c{label}").mkdir(parents=True)
        (root / "by_class" / f"c{label}" / "a.png").write_bytes(picture())
    assert datasets.load(folder).test.class_names == found.test.class_names


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
def test_the_table_divides_in_any_format(root, suffix):
    rows = rows_of(lambda label, number: "train" if label < 4 else "test")
    heading = [*HEADING, "split"]
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        columns = dict(zip(heading, map(list, zip(*rows, strict=True)), strict=True))
        columns["label"] = [int(name[1:]) for name in columns["label"]]
        parquet.write_table(pyarrow.table(columns), root / "t.parquet")
    else:
        rows = [[path, label[1:], split] for path, label, split in rows]
        write(root / f"t{suffix}", rows, heading=heading, delimiter=",\t"[suffix == ".tsv"])
    found = load(root / f"t{suffix}")
    assert found.train.class_names == ("0", "1", "2", "3")
    assert found.test.class_names == ("4", "5") and found.queries is None
    np.testing.assert_array_equal(found.test.images([3])[0], pixels(root, 5, 1))


def test_queries_gallery_and_cameras(root):
    path = write(
        root / "t.csv",
        rows_of(
            lambda label, number: "train" if label < 3 else "test",
            lambda label, number: "" if label < 3 else ("query", "gallery")[number],
            lambda label, number: f"door {number}",
        ),
        heading=[*HEADING, "split", "role", "camera"],
    )
    found = load(path)
    assert found.queries.class_names == found.gallery.class_names == ("c3", "c4", "c5")
    assert found.queries.labels.tolist() == [0, 1, 2]
    assert (found.queries.cameras.tolist(), found.gallery.cameras.tolist()) == ([0] * 3, [1] * 3)
    np.testing.assert_array_equal(found.gallery.images([1])[0], pixels(root, 4, 1))
    assert "6 images of 3 train; 3 images of 3 query; 3 images of 3 gallery." in found.report


def test_queries_without_a_match_are_foretold(root):
    rows = rows_of(lambda label, number: ("train", "query", "gallery")[label // 2])
    path = write(root / "t.csv", rows, heading=[*HEADING, "split"])
    assert "query: no image has one of its class in the gallery" in load(path).report
    assert "query: no image has one of its class in the gallery" in data.check(path)


@pytest.mark.parametrize("kind", ["box", "sides", "ends"])
def test_boxes_cut_what_a_viewer_shows(root, kind):
    stream = io.BytesIO()
    turned = Image.Exif()
    turned[0x0112] = 6  # A viewer turns it clockwise: 7 wide, 9 high.
    image = Image.fromarray(pixels(root, 0, 0))
    image.save(stream, "png", exif=turned)
    (root / "images" / "0_0.png").write_bytes(stream.getvalue())
    shown = np.rot90(pixels(root, 0, 0), -1)
    boxes = {(0, 0): (1, 2, 3, 4), (0, 1): (5, 4, 90, 90), (1, 0): ()}

    def side(place):
        def cell(label, number):
            box = boxes.get((label, number), (0, 0, 9, 7))
            if kind == "ends" and place > 1 and box:
                return box[place - 2] + box[place]
            return box[place] if box else ""

        return cell

    cells, heading = [side(place) for place in range(4)], ["left", "top", "right", "bottom"]
    heading = heading[:2] + ["width", "height"] if kind == "sides" else heading
    if kind == "box":
        parts, heading = cells, ["box"]
        cells = [lambda *key: '"' + ", ".join(str(part(*key)) for part in parts).strip(", ") + '"']
    path = write(root / "t.csv", rows_of(*cells), heading=[*HEADING, *heading])
    found = table.collect(path)["all"]
    for row, expected in enumerate(
        [shown[2:6, 1:4], pixels(root, 0, 1)[4:, 5:], pixels(root, 1, 0)]
    ):
        data_of = tf.constant(found.examples.fetch([row])[0])
        np.testing.assert_array_equal(found.decode(data_of), expected)
        np.testing.assert_array_equal(
            tf.io.decode_png(found.file_content(row)), expected, err_msg="as converted"
        )


def test_a_box_outside_its_image_is_told_by_line(root):
    box = lambda label, number: "20 0 5 5" if (label, number) == (2, 1) else ""  # noqa: E731
    path = write(root / "t.csv", rows_of(box), heading=[*HEADING, "box"])
    told = data.check(path)
    assert f"unreadable: {path}, line 7: {root}/images/2_1.png: the box [20 0 5 5] (left, " in told
    assert "lies outside the image of [9 7] pixels." in told
    assert "skipped 1 unreadable of 12 images" in load(path).report
    with pytest.raises(base.DataError, match="2_1.png cannot be read: the box"):
        for split in (found := load(path, verify=False)).train, found.test:
            split.images()


def test_any_file_system_of_tensorflow():
    for label in range(4):
        for number in range(2):
            with tf.io.gfile.GFile(f"ram://far/{label}_{number}.png", "wb") as stream:
                stream.write(picture(seed=label))
    rows = [[f"{label}_{number}.png", label] for label in range(4) for number in range(2)]
    rows[0][0] = "ram://far/0_0.png"
    path = write("ram://far/t.csv", rows)
    found = load(path, test_fraction=0.5)
    assert len(found.train.images()) + len(found.test.images()) == 8
    assert "8 images of 4 classes, 0 unreadable" in data.check(path)
    with pytest.raises(base.DataError, match=r"none at 'ram://far/none\.csv'"):
        load("ram://far/none.csv")


def test_images_that_are_not_there_and_rows_that_repeat_are_told_by_line(root):
    rows = [*rows_of(), ["images/none.png", "c0"], ["images/../images/1_0.png", "c1"]]
    found = load(write(root / "t.csv", rows))
    assert len(found.train) + len(found.test) == 12
    assert f"left out 1 images that are not there: line 14 ({root}/images/none.png)" in found.report
    assert "left out 1 rows that name an image again: line 15" in found.report
    with pytest.raises(base.DataError, match="none of 1 images is there. The first: line 2"):
        load(write(root / "t.csv", [["none.png", "a"]]))


@pytest.mark.parametrize(
    ("heading", "row", "message"),
    [
        ("path,label", "a.png,", "line 14, column label: expected the name of a class, found ''"),
        ("path,label", ",c0", "line 14, column path: expected the path of an image"),
        ("path,label", "a.png", "line 14: expected 2 cells as in the first line, found 1"),
        ("path,label", "images/0_0.png,c1", "has the label 'c1', in line 2 it has 'c0'. List it"),
        ("path,label,split", "a.png,c0,val", "column split: expected one of .*train.*found 'val'"),
        ("path,label,split", "images/0_0.png,c0,test", "the part 'test', in line 2 it has 'train'"),
        ("path,label,role", "a.png,c0,probe", "column role: expected one of nothing, query, gall"),
        ("path,label,box", "a.png,c0,1 2 3", "box: expected left, top, width and height in pixels"),
        ("path,label,box", "a.png,c0,1 2 0 3", "box: .*of an area above 0, found '1 2 0 3'"),
        ("path,label,box", "a.png,c0,-9 2 3 3", "box: expected left, top"),
        ("path,label,label", "a.png,c0,c0", "columns of different names, found 'label' more than"),
    ],
)
def test_rows_that_cannot_be_are_told_by_line_and_column(root, heading, row, message):
    fill = "train" if "split" in heading else ""
    rows = [[*cells, *[fill] * (heading.count(",") - 1)] for cells in rows_of()]
    path = write(root / "t.csv", [*rows, row.split(",")], heading=heading.split(","))
    with pytest.raises(base.DataError, match=message):
        table.collect(path)


def test_query_and_gallery_want_their_camera(root):
    camera = lambda label, number: "" if label == 5 else 1  # noqa: E731
    split = lambda label, number: "train" if label < 4 else ("query", "gallery")[number]  # noqa: E731
    path = write(root / "t.csv", rows_of(split, camera), heading=[*HEADING, "split", "camera"])
    with pytest.raises(base.DataError, match="line 12, column camera: .*found ''. 1 more rows are"):
        table.collect(path)


def test_a_division_that_lacks_a_part(root):
    path = write(root / "t.csv", rows_of(lambda *_: "train"), heading=[*HEADING, "split"])
    with pytest.raises(base.DataError, match="images of test and train, found none of test; there"):
        table.collect(path)


def test_columns_of_other_names(root):
    path = write(root / "t.csv", rows_of(lambda *_: 3), heading=["file", "species", "age"])
    with pytest.raises(base.DataError, match="column 'path'.*found the columns file, species, age"):
        load(path)
    with pytest.raises(base.DataError, match=r"column 'kind' \(label\)"):
        load(path, columns={"path": "file", "label": "kind"})
    found = load(path, columns={"path": "file", "label": "species"})
    assert "columns that are left alone: age." in found.report


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\n", "expected a row for each image, found none"),
        (b"path,label\na.png,caf\xe9\n", "line 2: expected UTF-8"),
        (b"PAR1 cut short", "no whole Parquet file"),
        (b"", "expected a row for each image"),
    ],
)
def test_files_that_are_no_tables(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(base.DataError, match=message):
        table.collect(str(tmp_path / "t.csv"))


def test_another_table_to_test_on(root):
    rows = rows_of()
    train, test = write(root / "a.csv", rows[:8]), write(root / "b.csv", rows[8:])
    found = load(train, test_path=test)
    assert (found.train.class_names, found.test.class_names) == (
        ("c0", "c1", "c2", "c3"),
        ("c4", "c5"),
    )


def test_converted_parts_are_the_table_again(root):
    rows = rows_of(
        lambda label, number: "train" if label < 4 else "test",
        lambda label, number: "1 1 4 5" if number else "",
    )
    path = write(root / "t.csv", rows, heading=[*HEADING, "split", "box"])
    told = data.convert(path, output=str(root / "shards"))
    assert "train: Wrote 8 images of 4 classes" in told
    before, (train, test) = load(path), (str(root / "shards" / p) for p in ("train", "test"))
    config = {"name": "tfrecord", "path": train, "test_path": test}
    after = datasets.load({**config, "image_size": 7, "image_width": 9})
    for split in ("train", "test"):
        expected, found = getattr(before, split), getattr(after, split)
        assert found.class_names == expected.class_names
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.images(), expected.images())


def test_another_box_is_other_data(root):
    from trainers.datasets import inventory

    found = []
    for size in (4, 5):
        box = lambda *_, size=size: f"0 0 {size} {size}"  # noqa: E731
        path = write(root / "t.csv", rows_of(box), heading=[*HEADING, "box"])
        found.append(inventory.take(load(path)))
    assert "with other examples" in inventory.changes(*found)
