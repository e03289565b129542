"""Any record of TFRecord files, by its number: what sampling P classes x K examples needs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.utils import errors, files

__all__ = ["RecordError", "RecordFiles", "write_index"]

# A record: length (8 bytes), checksum of the length (4), data, checksum of the data (4).
_HEADER_BYTES, _FOOTER_BYTES = 12, 4
_INDEX_SUFFIX = ".index.npz"
_SCANNED = 64  # records parsed at a time


class RecordError(errors.UserError):
    """A TFRecord file is damaged, cut short, or not what it should be; names file and offset."""


class RecordFiles:
    """The records of TFRecord files as one sequence, read in any order.

    Each record is a `tf.train.Example` with a whole-number label. Where it lies in its file and
    its label come from the index beside the file (`write_index`), or from one scan. Files must be
    uncompressed.

    What is checked when: all checksums once, by TensorFlow, while a file is scanned (here, or when
    its index was written). A file with an index must be as long as it was then. When a record is
    read, it must be whole and as long as indexed; its checksum is not computed again.

    Args:
        paths: TFRecord files, in the order in which to number their records.
        label_feature: name of the int64 feature that holds the label.
        progress: wraps the list of paths while the files are indexed, as `tqdm.tqdm` does.

    Attributes:
        labels: label of each record `[N]` int64.
        lengths: bytes of data of each record `[N]` int64.

    Raises:
        RecordError: a file is damaged, or a record has no such label.
        ValueError: no file, or no record in the files.

    Example:
        >>> import os, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "a.tfrecord")
        >>> label = tf.train.Feature(int64_list=tf.train.Int64List(value=[7]))
        >>> example = tf.train.Example(features=tf.train.Features(feature={"label": label}))
        >>> with tf.io.TFRecordWriter(path) as writer:
        ...     writer.write(example.SerializeToString())
        >>> records = RecordFiles([path])
        >>> len(records), records.labels.tolist()
        (1, [7])
        >>> records.fetch([0]) == [example.SerializeToString()]
        True
    """

    def __init__(
        self,
        paths: Iterable[str | os.PathLike[str]],
        *,
        label_feature: str = "label",
        progress: Callable[[list[str]], Iterable[str]] = iter,
    ) -> None:
        self.paths = [os.fspath(path) for path in _as_list(paths)]
        if not self.paths:
            raise ValueError("Expected at least one TFRecord file, found an empty list.")
        indices = [_file_index(path, label_feature) for path in progress(self.paths)]
        counts = [len(index["labels"]) for index in indices]
        self._files = np.repeat(np.arange(len(counts)), counts)
        self._offsets, self.lengths, self.labels = (
            np.concatenate([index[name] for index in indices])
            for name in ("offsets", "lengths", "labels")
        )
        if not len(self):
            raise ValueError(
                f"Expected records, found none in {len(self.paths)} files: {self.paths[0]}, ..."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: ArrayLike) -> RecordFiles:
        """A part of the records, as a sequence of its own; nothing is read.

        Args:
            rows: numbers of the records wanted `[n]`, in the order wanted.

        Returns:
            `n` records.
        """
        part = object.__new__(RecordFiles)
        part.paths = self.paths
        for name in ("_files", "_offsets", "lengths", "labels"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def where(self, row: int) -> str:
        """File and offset of a record, for messages."""
        return _where(self.paths[self._files[row]], self._offsets[row])

    def fetch(self, indices: ArrayLike) -> list[bytes]:
        """Reads records; may be called from several threads at once.

        Args:
            indices: numbers of the records `[n]`, each in `[0, N)`.

        Returns:
            The serialized examples, in the order of `indices`.

        Raises:
            IndexError: a number is out of range.
            RecordError: a record is cut short, or of another length than when indexed.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise IndexError(
                f"Expected record numbers from 0 to {len(self) - 1}, "
                f"found {indices.min()} to {indices.max()}."
            )
        records = [None] * len(indices)
        for file in np.unique(self._files[indices]):
            places = np.flatnonzero(self._files[indices] == file)
            # Unbuffered: of a read at random, what follows the record is of no use.
            with open(self.paths[file], "rb", buffering=0) as stream:
                for place in places[np.argsort(self._offsets[indices[places]])]:
                    row = indices[place]
                    stream.seek(self._offsets[row])
                    content = stream.read(_HEADER_BYTES + self.lengths[row] + _FOOTER_BYTES)
                    records[place] = self._data(row, content)
        return records

    def _data(self, row, content):
        """The data of a record, from the bytes where it should be."""
        wanted = int(self.lengths[row])
        length = int.from_bytes(content[:8], "little")
        if len(content) >= _HEADER_BYTES and length != wanted:
            raise RecordError(
                f"{self.where(row)}: expected {wanted} bytes of data, found {length}. The file has "
                "changed since it was indexed, or is damaged: write its index again with "
                "circle_tf.records.write_index."
            )
        if len(content) < _HEADER_BYTES + wanted + _FOOTER_BYTES:
            raise _cut_short(self.paths[self._files[row]], self._offsets[row])
        return content[_HEADER_BYTES:-_FOOTER_BYTES]


def write_index(path: str | os.PathLike[str], *, label_feature: str = "label") -> str:
    """Scans a TFRecord file and writes beside it where its records lie, and their labels.

    `RecordFiles` then starts without reading the whole file. An index that no longer fits its
    file is warned of and not used.

    Args:
        path: an uncompressed TFRecord file of `tf.train.Example`.
        label_feature: name of the int64 feature that holds the label.

    Returns:
        Path of the index.

    Raises:
        RecordError: the file is damaged, or a record has no such label.
    """
    path = os.fspath(path)
    target = path + _INDEX_SUFFIX
    index = _scan(path, label_feature)
    size = os.path.getsize(path)
    with files.replacing(target) as partial, open(partial, "wb") as stream:
        np.savez(stream, **index, label_feature=label_feature, file_size=size)
    return target


def _file_index(path, label_feature):
    """Offsets, lengths and labels of a file's records, from its index if that fits."""
    if not os.path.exists(path + _INDEX_SUFFIX):
        return _scan(path, label_feature)
    try:
        with np.load(path + _INDEX_SUFFIX, allow_pickle=False) as stored:
            index = {name: stored[name] for name in ("offsets", "lengths", "labels")}
            fits = stored["file_size"] == os.path.getsize(path)
            fits = fits and stored["label_feature"] == label_feature
    except (OSError, ValueError, KeyError, EOFError):
        fits = False
    if fits:
        return index
    warnings.warn(
        f"{path}{_INDEX_SUFFIX} does not fit its file, which is scanned instead. "
        "Delete the index, or write it again with circle_tf.records.write_index.",
        stacklevel=4,
    )
    return _scan(path, label_feature)


def _scan(path, label_feature):
    """Reads a whole file, which checks it, and notes where its records lie."""
    features = {label_feature: tf.io.FixedLenFeature([], tf.int64)}
    scanned = tf.data.TFRecordDataset(path).batch(_SCANNED)
    scanned = scanned.map(
        lambda data: (tf.strings.length(data), tf.io.parse_example(data, features)[label_feature])
    )
    try:
        batches = list(scanned.as_numpy_iterator())
    # TensorFlow's message quotes the record, which need not be text.
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
        raise _first_fault(path, features) from error
    lengths, labels = (
        np.concatenate([np.empty(0, np.int64), *column]).astype(np.int64)
        for column in (zip(*batches, strict=True) if batches else [(), ()])
    )
    ends = np.cumsum(lengths + _HEADER_BYTES + _FOOTER_BYTES)
    end = int(ends[-1]) if len(ends) else 0
    if os.path.getsize(path) != end:  # Fewer bytes than a header's are no error to TensorFlow.
        raise _cut_short(path, end)
    return {"offsets": np.append(0, ends)[:-1], "lengths": lengths, "labels": labels}


def _first_fault(path, features):
    """The error of a file that `_scan` could not read, with the offset that a batch hides."""
    offset = 0
    try:
        for data in tf.data.TFRecordDataset(path).as_numpy_iterator():
            try:
                tf.io.parse_single_example(data, features)
            except (tf.errors.InvalidArgumentError, UnicodeDecodeError):
                return RecordError(
                    f"{_where(path, offset)}: expected a tf.train.Example with one int64 in the "
                    f"feature '{next(iter(features))}', found {_features(data)}."
                )
            offset += _HEADER_BYTES + len(data) + _FOOTER_BYTES
    except tf.errors.DataLossError as error:
        with open(path, "rb") as stream:
            compressed = offset == 0 and stream.read(2) in (b"\x1f\x8b", b"\x78\x9c")
        if compressed:
            return RecordError(
                f"{_where(path, 0)}: expected an uncompressed TFRecord file, found a compressed "
                "one: records cannot be read at random from it. Write it again without "
                "compression."
            )
        if "truncated" in error.message:
            return _cut_short(path, offset)
        return RecordError(
            f"{_where(path, offset)}: the checksum does not match, the file is damaged (or no "
            "TFRecord file). Copy or write it again."
        )
    return RecordError(f"{path}: the file changed while it was read. Open it again.")


def _features(data):
    """What a record holds, for an error message."""
    try:
        feature = tf.train.Example.FromString(data).features.feature
    except Exception:  # the parser's own exception type belongs to protobuf
        return "data that is no tf.train.Example"
    kinds = [f"{name} ({feature[name].WhichOneof('kind')})" for name in sorted(feature)]
    return f"the features {', '.join(kinds)}" if kinds else "an example without features"


def _cut_short(path, offset):
    return RecordError(
        f"{_where(path, offset)}: the file ends in the middle of the record, it was cut "
        "short. Copy or write it again."
    )


def _where(path, offset):
    return f"{path}, record at byte {offset}"


def _as_list(paths):
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
