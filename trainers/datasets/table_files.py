"""CSV and Parquet files as columns of text, whose errors name the line."""

import csv
import dataclasses
import io
import math

import tensorflow as tf

from circle_tf.utils import errors
from trainers.datasets import base, places

__all__ = ["SUFFIXES", "Table", "is_table", "read"]

SUFFIXES = (".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t"
_PARQUET = b"PAR1"  # The first bytes of such a file.


@dataclasses.dataclass(frozen=True)
class Table:
    """A table's cells.

    Args:
        path: of the file.
        columns: dict of name to the cells, list of str; "" where there is none.
        lines: where each row stands in the file, from 1.
        unit: what is counted so: `line` of text, or `row`.
    """

    path: str
    columns: dict
    lines: list
    unit: str = "line"

    def __len__(self):
        return len(self.lines)

    def where(self, row):
        """What to call a row in messages."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def refuse(self, rows, column, *, expected):
        """Raises an error where there are rows that cannot be.

        Args:
            rows: their numbers, from 0.
            column: name of the column that is at fault.
            expected: what should stand there.

        Raises:
            base.DataError: there are such rows; the first is told whole, the others are counted.
        """
        if not rows:
            return
        others = f" {len(rows) - 1} more rows are like it." if len(rows) > 1 else ""
        raise base.DataError(
            f"{self.where(rows[0])}, column {column}: expected {expected}, found "
            f"{self.columns[column][rows[0]]!r}.{others}"
        )


def is_table(path):
    """Whether a path is that of a table, by its suffix."""
    return path.lower().endswith(SUFFIXES)


def read(path) -> Table:
    """Reads a table whole.

    Args:
        path: CSV in UTF-8 with a line of names (its cells parted by commas, semicolons or tabs), or
            Parquet; on a local disk, or a URL that `tf.io.gfile` knows.

    Returns:
        Table.

    Raises:
        base.DataError: it is not there, is no table, or has no rows.
    """
    try:
        content = places.read(path)
    except tf.errors.OpError as error:
        raise base.DataError(
            f"Expected a table (.csv or .parquet) of images, found none at {path!r}: "
            f"{errors.reason(error)}. Give it as --config.dataset.path=TABLE."
        ) from error
    table = (_parquet if content.startswith(_PARQUET) else _csv)(path, content)
    if not len(table):
        raise base.DataError(f"{path}: expected a row for each image, found none.")
    return table


def _csv(path, content):
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise base.DataError(f"{path}, line {line}: expected UTF-8. Save it as such.") from error
    heading = text.partition("\n")[0]
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=heading.count)
    )
    names, rows, lines = None, [], []
    try:
        for row in reader:
            if names is None:
                names = [name.strip() for name in row]
            elif row:  # Else an empty line.
                _check_width(path, reader.line_num, row, names)
                rows.append([cell.strip() for cell in row])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise base.DataError(f"{path}, line {reader.line_num}: {error}.") from error
    columns = zip(*rows, strict=True) if rows else [[] for _ in names or []]
    return Table(path, _named(path, names or [], [list(column) for column in columns]), lines)


def _check_width(path, line, row, names):
    if len(row) != len(names):
        raise base.DataError(
            f"{path}, line {line}: expected {len(names)} cells as in the first line, found "
            f"{len(row)}. Put cells that hold the delimiter in quotes."
        )


def _named(path, names, columns):
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise base.DataError(
            f"{path}: expected columns of different names, found {doubled[0]!r} more than once."
        )
    return dict(zip(names, columns, strict=True))


def _parquet(path, content):
    try:
        from pyarrow import lib, parquet
    except ImportError as error:
        raise base.DataError(
            f"{path}: Parquet needs pyarrow: pip install pyarrow, or save the table as CSV."
        ) from error
    try:
        table = parquet.read_table(io.BytesIO(content))
    except lib.ArrowException as error:
        raise base.DataError(f"{path}: no whole Parquet file: {errors.reason(error)}") from error
    columns = [[_text(cell) for cell in column.to_pylist()] for column in table.columns]
    lines = list(range(1, table.num_rows + 1))
    return Table(path, _named(path, table.column_names, columns), lines, unit="row")


def _text(cell):
    """A cell as CSV would have it; whole numbers without a point, lists as their numbers."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, list | tuple):
        return " ".join(map(_text, cell))
    return str(cell).strip()
