"""People's own images, listed in a table: a row for each, with its path and its class."""

import dataclasses
import math
import os
import re

import numpy as np

from trainers.datasets import base, folder, parts, places, table_files, views
from trainers.datasets.collection import Collection, to_dataset

__all__ = ["COLUMNS", "collect", "load", "seen_by"]

COLUMNS = ("path", "label", "split", "role", "camera", "box")
_SPLITS = ("train", "test", "query", "gallery")
_ROLES = ("query", "gallery")
_ORDER = ("all", *_SPLITS)
# Boxes in four columns; of the first two kinds the last are width and height.
_SIDES = (
    ("left", "top", "width", "height"),
    ("x", "y", "width", "height"),
    ("left", "top", "right", "bottom"),
    ("xmin", "ymin", "xmax", "ymax"),
)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MOST = 2**30  # pixels


def load(config) -> base.Dataset:
    """Reads the table, checks the images, and divides them as the table says.

    Args:
        config: `path` (a table, see `collect`), `test_path` (a table of other classes to test on;
            empty: as the table says, or else hold some out), `columns` (names of the table's
            columns, a mapping from those of `COLUMNS`), and the fields of
            `collection.to_dataset`.

    Returns:
        The data set; queries, gallery and cameras where the table has them.

    Raises:
        DataError: no table, a row that cannot be, or images that cannot be used.
    """
    columns = config.get("columns", {})
    found, tests = collect(config.get("path", ""), columns), config.get("test_path", "")
    if tests:
        other = collect(tests, columns)
        if {*found, *other} != {"all"}:
            raise base.DataError(
                f"{tests}: dataset.test_path is for tables without a split; give the one table "
                "that says what is tested on as dataset.path."
            )
        return to_dataset("table", found["all"], other["all"], config)
    if "all" in found:
        return to_dataset("table", found["all"], None, config)
    if set(found) == {"train", "test"}:
        return to_dataset("table", found["train"], found["test"], config)
    pair = [seen_by(found[part]) for part in _ROLES]
    return parts.to_dataset("table", found, config, notes=parts.unmatched(*pair))


def collect(path: str, columns=None) -> dict[str, Collection]:
    """Lists the images of a table, without reading them.

    Columns: `path` of the image (absolute, relative to the table, or a URL that `tf.io.gfile`
    knows), `label` (any text or number); and where there are such `split` (train, test, query or
    gallery), `role` (query, gallery or nothing, of images to test on), `camera` (text or number)
    and `box` (left, top, width and height in pixels of the upright image, as `12 0 64 128`; empty
    for the whole image), which may be four columns too: left, top (or x, y), width and height (or
    right and bottom), or xmin, ymin, xmax and ymax. Other columns are left alone.

    Args:
        path: a CSV or Parquet file.
        columns: mapping from these names to those that the table has.

    Returns:
        dict of part to its images, in the order of the table: `all` where the table does not
        divide them, else `train` and `test`, or `train`, `query`, `gallery` and perhaps `test`.

    Raises:
        DataError: no table, a row that cannot be (its line and column are told), an image under two
            labels, or no image of those listed.
    """
    table = table_files.read(path)
    names = _column_names(table, columns or {})
    for column, expected in (("path", "the path of an image"), ("label", "the name of a class")):
        table.refuse(_where(table, names[column], ""), names[column], expected=expected)
    listed = _Listed(
        table,
        [places.join(os.path.dirname(path), file) for file in table.columns[names["path"]]],
        table.columns[names["label"]],
        _parts(table, names),
        _boxes(table, names),
    )
    rows, notes = _without_doubles(listed, _there(listed))
    found = _collection(listed, rows, _cameras(table, names, listed.parts))
    divided = np.array(listed.parts, object)[rows]
    found = {part: found.take(np.flatnonzero(divided == part)) for part in dict.fromkeys(divided)}
    _check_parts(table, found)
    notes += _unused(table, names)
    first = min(found, key=_ORDER.index)
    found[first] = dataclasses.replace(found[first], notes=tuple(notes))
    return {part: found[part] for part in _ORDER if part in found}


@dataclasses.dataclass(frozen=True)
class _Listed:
    """What a table says of each row: its file, class, part and box."""

    table: table_files.Table
    files: list
    labels: list
    parts: list
    boxes: np.ndarray


def _column_names(table, renamed):
    """The table's names of the columns that it has."""
    names = {column: renamed.get(column, column) for column in COLUMNS}
    wanted = {"path", "label", *(c for c in names if names[c] not in ("", c))}
    if absent := [
        column for column in COLUMNS if column in wanted and not _has(table, names, column)
    ]:
        raise base.DataError(
            f"{table.path}: expected a column {names[absent[0]]!r} ({absent[0]}), found "
            f"the columns {', '.join(table.columns)}. Name it: "
            f"--config.dataset.columns.{absent[0]}=NAME (trainers.data: --columns=...)."
        )
    return {column: name for column, name in names.items() if name in table.columns}


def _has(table, names, column):
    return names[column] in table.columns


def _where(table, column, *values):
    """Rows that have one of these values in a column."""
    return [row for row, cell in enumerate(table.columns[column]) if cell in values]


def _parts(table, names):
    """The part that each row belongs to; `all` where the table does not divide them."""
    rows = range(len(table))
    if "split" not in names and "role" not in names:
        return ["all" for _ in rows]
    splits = _choices(table, names, "split", ("", *_SPLITS))
    roles = _choices(table, names, "role", ("", *_ROLES))
    if "split" in names:
        neither = [row for row in rows if not splits[row] and not roles[row]]
        table.refuse(neither, names["split"], expected=f"one of {', '.join(_SPLITS)}")
        odd = [r for r in rows if roles[r] and splits[r] not in ("", "test", roles[r])]
        if odd:
            table.refuse(odd, names["role"], expected=f"nothing, in a row of {splits[odd[0]]}")
    return [roles[row] or splits[row] or "train" for row in rows]


def _choices(table, names, column, known):
    if column not in names:
        return [""] * len(table)
    cells = [cell.lower() for cell in table.columns[names[column]]]
    odd = [row for row, cell in enumerate(cells) if cell not in known]
    words = f"one of {', '.join(word or 'nothing' for word in known)}"
    table.refuse(odd, names[column], expected=words)
    return cells


def _boxes(table, names):
    """Left, top, width and height of each row `[N, 4]`; None where the table has no boxes."""
    sides = next((sides for sides in _SIDES if set(sides) <= set(table.columns)), None)
    if "box" not in names and sides is None:
        return None
    boxes = np.zeros([len(table), 4], np.int64)
    if "box" in names:
        cells, column, ends = table.columns[names["box"]], names["box"], False
    else:
        cells = [" ".join(c) for c in zip(*(table.columns[s] for s in sides), strict=True)]
        column, ends = sides[0], sides[-1] not in ("height",)
    found = [_box(cell, ends=ends) for cell in cells]
    odd = [row for row, box in enumerate(found) if box is None]
    kind = "right and bottom" if ends else "width and height"
    table.refuse(odd, column, expected=f"left, top, {kind} in pixels, of an area above 0")
    boxes[:] = found
    return boxes


def _box(cell, *, ends):
    """The box of a cell: `WHOLE` of an empty one, None of one that is no box."""
    if not cell.strip():
        return views.WHOLE
    numbers = [float(number) for number in _NUMBER.findall(cell)]
    rest = _NUMBER.sub("", cell).strip(" ,;[]()")
    if len(numbers) != 4 or rest.strip(" ,;") or max(map(abs, numbers)) > _MOST:
        return None
    left, top, right, bottom = numbers
    if not ends:
        right, bottom = left + right, top + bottom
    left, top, right, bottom = (math.floor(side + 0.5) for side in (left, top, right, bottom))
    if right <= max(left, 0) or bottom <= max(top, 0):
        return None
    return left, top, right - left, bottom - top


def _cameras(table, names, divided):
    """Number of the camera of each row `[N]`; None where the table has none."""
    if "camera" not in names:
        return None
    cells = table.columns[names["camera"]]
    if not any(cells):
        return None
    missing = [row for row, part in enumerate(divided) if part in _ROLES and not cells[row]]
    table.refuse(missing, names["camera"], expected="the camera of a query or gallery image")
    if all(cell.isdecimal() and len(cell) < 10 for cell in cells if cell):
        return np.array([int(cell or -1) for cell in cells], np.int64)
    return np.unique(cells, return_inverse=True)[1].astype(np.int64)


def _there(listed):
    """Whether there is a file for each row."""
    return [status is not None for status in places.statuses(listed.files)]


def _without_doubles(listed, there):
    """Rows of images that are there, each once; and what there is to tell of the others.

    Raises:
        base.DataError: an image has two labels, or is in two parts; or none is there.
    """
    first, kept, doubled, absent = {}, [], [], []
    boxes = [None] * len(there) if listed.boxes is None else map(tuple, listed.boxes)
    for row, box in enumerate(boxes):
        before = first.setdefault((listed.files[row], box), row)
        if before != row:
            _check_same(listed, before, row)
            doubled.append(row)
        elif there[row]:
            kept.append(row)
        else:
            absent.append(row)
    if not kept:
        raise base.DataError(
            f"{listed.table.path}: none of {len(first)} images is there. The first: "
            f"{_told(listed, absent[:1])}. Paths are relative to the table's folder."
        )
    notes = [
        f"{listed.table.path}: left out {len(rows)} {what}: {_told(listed, rows)}."
        for rows, what in (
            (absent, "images that are not there"),
            (doubled, "rows that name an image again"),
        )
        if rows
    ]
    return np.array(kept), notes


def _check_same(listed, before, row):
    for kind, values in (("label", listed.labels), ("part", listed.parts)):
        if values[before] != values[row]:
            table = listed.table
            raise base.DataError(
                f"{table.where(row)}: {listed.files[row]} has the {kind} {values[row]!r}, in "
                f"{table.unit} {table.lines[before]} it has {values[before]!r}. List it once."
            )


def _told(listed, rows):
    table = listed.table
    return base.sentence_list(
        [f"{table.unit} {table.lines[row]} ({listed.files[row]})" for row in rows]
    )


def _collection(listed, rows, cameras):
    files = np.array(listed.files, object)[rows]
    class_names, labels = np.unique(np.array(listed.labels, str)[rows], return_inverse=True)
    fingerprints, identities = folder.marks(files, root=os.path.dirname(listed.table.path))
    examples = files
    if listed.boxes is not None:
        boxes = listed.boxes[rows]
        examples = views.Views(files, boxes, np.zeros(len(rows), np.int64))
        told = [f"|{box.tolist()}" for box in boxes]
        fingerprints, identities = fingerprints + told, identities + told
    return Collection(
        root=listed.table.path,
        examples=examples,
        labels=labels.astype(np.int64),
        class_names=tuple(class_names.tolist()),
        names=np.array([f"{listed.table.where(r)}: {listed.files[r]}" for r in rows], object),
        fingerprints=fingerprints,
        identities=identities,
        content=lambda content: content,
        cameras=None if cameras is None else cameras[rows],
    )


def _check_parts(table, found):
    """Refuses a division that leaves nothing to train on, to test on or to look up in."""
    if "all" in found:
        return
    wanted = {"train"} | (set(_ROLES) if set(_ROLES) & set(found) else {"test"})
    if absent := sorted(wanted - set(found)):
        raise base.DataError(
            f"{table.path}: expected images of {' and '.join(sorted(wanted))}, found none of "
            f"{absent[0]}; there are {', '.join(found)}."
        )


def _unused(table, names):
    used = {*names.values(), *(side for sides in _SIDES for side in sides)}
    left = [name for name in table.columns if name not in used]
    return (
        [f"{table.path}: columns that are left alone: {base.sentence_list(left)}."] if left else []
    )


def seen_by(collection):
    """What `parts.unmatched` wants to know: (class, camera) of each image."""
    names = np.array(collection.class_names, object)[collection.labels]
    cameras = [None] * len(names) if collection.cameras is None else collection.cameras.tolist()
    return list(zip(names, cameras, strict=True))
