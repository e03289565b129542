"""Any record of TFRecord files, by its number: what sampling P classes x K examples needs."""

import os
import struct
import warnings
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from circle_tf.data.crc32c import masked_crc32c
from circle_tf.utils import errors, files

__all__ = ["RecordError", "RecordFiles", "write_index"]

# A record: length (8 bytes), checksum of the length (4), data, checksum of the data (4).
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
_INDEX_SUFFIX = ".index.npz"
_SCAN_BYTES = 16 << 20


class RecordError(errors.UserError):
    """A TFRecord file is damaged, cut short, or not what it should be; names file and offset."""


class RecordFiles:
    """The records of TFRecord files as one sequence, read in any order.

    Each record is a `tf.train.Example` with a whole-number label. Where it lies in its file and
    its label come from the index beside the file (`write_index`), or from one scan. Every record
    is checked against its checksum each time it is read. Files must be uncompressed.

    Args:
        paths: TFRecord files, in the order in which to number their records.
        label_feature: name of the int64 feature that holds the label.
        progress: wraps the list of paths while the files are indexed, as `tqdm.tqdm` does.

    Attributes:
        labels: label of each record `[N]` int64.

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

    def __init__(self, paths, *, label_feature="label", progress=iter):
        self.paths = [os.fspath(path) for path in _as_list(paths)]
        if not self.paths:
            raise ValueError("Expected at least one TFRecord file, found an empty list.")
        indices = [_file_index(path, label_feature) for path in progress(self.paths)]
        counts = [len(index["labels"]) for index in indices]
        self._files = np.repeat(np.arange(len(counts)), counts)
        self._offsets, self._lengths, self.labels = (
            np.concatenate([index[name] for index in indices])
            for name in ("offsets", "lengths", "labels")
        )
        if not len(self):
            raise ValueError(
                f"Expected records, found none in {len(self.paths)} files: {self.paths[0]}, ..."
            )

    def __len__(self):
        return len(self.labels)

    def take(self, rows) -> "RecordFiles":
        """A part of the records, as a sequence of its own; nothing is read.

        Args:
            rows: numbers of the records wanted `[n]`, in the order wanted.

        Returns:
            `n` records.
        """
        part = object.__new__(RecordFiles)
        part.paths = self.paths
        for name in ("_files", "_offsets", "_lengths", "labels"):
            setattr(part, name, getattr(self, name)[rows])
        return part

    def where(self, row: int) -> str:
        """File and offset of a record, for messages."""
        return _where(self.paths[self._files[row]], self._offsets[row])

    def fetch(self, indices) -> list[bytes]:
        """Reads records; may be called from several threads at once.

        Args:
            indices: numbers of the records `[n]`, each in `[0, N)`.

        Returns:
            The serialized examples, in the order of `indices`.

        Raises:
            IndexError: a number is out of range.
            RecordError: a record does not match its checksum or has changed since indexed.
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
            with _open(self.paths[file]) as stream:
                for place in places[np.argsort(self._offsets[indices[places]])]:
                    row = indices[place]
                    records[place] = _read(
                        stream,
                        path=self.paths[file],
                        offset=int(self._offsets[row]),
                        expected_length=int(self._lengths[row]),
                    )
        _check(records)
        return [record.data for record in records]


def write_index(path, *, label_feature: str = "label") -> str:
    """Scans a TFRecord file and writes beside it where its records lie, and their labels.

    `RecordFiles` then starts without reading the whole file. An index that no longer fits its
    file is told and not used.

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
    with files.replacing(target) as partial, open(partial, "wb") as stream:
        np.savez(
            stream,
            **_scan(path, label_feature),
            label_feature=label_feature,
            file_size=os.path.getsize(path),
        )
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
    """Reads a whole file, checks it, and notes where its records lie."""
    offsets, lengths, labels = [], [], []
    for records in _batches(path):
        _check(records)
        offsets += [record.offset for record in records]
        lengths += [len(record.data) for record in records]
        labels += _labels(records, label_feature=label_feature)
    return {
        "offsets": np.array(offsets, np.int64),
        "lengths": np.array(lengths, np.int64),
        "labels": np.array(labels, np.int64),
    }


def _batches(path):
    """Lists of consecutive records, some megabytes each."""
    offset, batch, size = 0, [], 0
    with _open(path) as stream:
        end = os.path.getsize(path)
        while offset < end:
            try:
                batch.append(_read(stream, path=path, offset=offset, end=end))
            except RecordError:
                _check(batch)  # a damaged length before it may be what led astray
                raise
            size += len(batch[-1].data)
            offset += _HEADER.size + len(batch[-1].data) + _FOOTER.size
            if size >= _SCAN_BYTES or len(batch) >= 4096:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _labels(records, *, label_feature):
    """Labels of serialized examples."""
    features = {label_feature: tf.io.FixedLenFeature([], tf.int64)}
    data = [record.data for record in records]
    try:
        return tf.io.parse_example(data, features)[label_feature].numpy().tolist()
    # TensorFlow's message quotes the record, which need not be text.
    except (tf.errors.InvalidArgumentError, UnicodeDecodeError) as error:
        if len(records) > 1:
            return [_labels([record], label_feature=label_feature)[0] for record in records]
        raise RecordError(
            f"{records[0].where}: expected a tf.train.Example with one int64 in the feature "
            f"'{label_feature}', found {_features(data[0])}."
        ) from error


def _features(data):
    """What a record holds, for an error message."""
    try:
        feature = tf.train.Example.FromString(data).features.feature
    except Exception:  # the parser's own exception type belongs to protobuf
        return "data that is no tf.train.Example"
    kinds = [f"{name} ({feature[name].WhichOneof('kind')})" for name in sorted(feature)]
    return f"the features {', '.join(kinds)}" if kinds else "an example without features"


class _Record(NamedTuple):
    """A record as it lies in a file, not yet checked."""

    path: str
    offset: int
    header: bytes
    data: bytes
    footer: bytes

    @property
    def where(self):
        return _where(self.path, self.offset)


def _read(stream, *, path, offset, end=None, expected_length=None):
    """The record at an offset; its length is either expected or must fit before `end`."""
    stream.seek(offset)
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise _cut_short(path, offset)
    length = _HEADER.unpack(header)[0]
    if expected_length not in (None, length):
        raise RecordError(
            f"{_where(path, offset)}: expected {expected_length} bytes of data, found "
            f"{length}. The file has changed since it was indexed, or is damaged: write its "
            "index again with circle_tf.records.write_index."
        )
    record = _Record(path, offset, header, b"", b"")
    if end is not None and offset + _HEADER.size + length + _FOOTER.size > end:
        _check_lengths([record])
        raise _cut_short(path, offset)
    rest = stream.read(length + _FOOTER.size)
    if len(rest) < length + _FOOTER.size:
        raise _cut_short(path, offset)
    return record._replace(data=rest[:length], footer=rest[length:])


def _check(records):
    """Compares records with their checksums, all in one go."""
    _check_lengths(records)
    stored = [_FOOTER.unpack(record.footer)[0] for record in records]
    _compare(records, masked_crc32c([record.data for record in records]) == stored)


def _check_lengths(records):
    stored = [_HEADER.unpack(record.header)[1] for record in records]
    _compare(records, masked_crc32c([record.header[:8] for record in records]) == stored)


def _compare(records, matches):
    if not np.all(matches):
        record = records[int(np.argmin(matches))]
        compressed = record.offset == 0 and record.header[:2] in (b"\x1f\x8b", b"\x78\x9c")
        raise RecordError(
            f"{record.where}: expected an uncompressed TFRecord file, found a compressed one: "
            "records cannot be read at random from it. Write it again without compression."
            if compressed
            else f"{record.where}: the checksum does not match, the file is damaged (or no "
            "TFRecord file). Copy or write it again."
        )


def _cut_short(path, offset):
    return RecordError(
        f"{_where(path, offset)}: the file ends in the middle of the record, it was cut "
        "short. Copy or write it again."
    )


def _where(path, offset):
    return f"{path}, record at byte {offset}"


def _open(path):
    return open(path, "rb", buffering=0)


def _as_list(paths):
    return [paths] if isinstance(paths, str | os.PathLike) else list(paths)
