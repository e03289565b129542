"""Face training sets in RecordIO (`train.rec`, `train.idx`): CASIA, MS1M, Glint360K.

Each record is framed by a magic number and its length, in multiples of four bytes; inside are a
header (flag, label, two numbers) and a JPEG file. With a flag above 0 so many float32 labels follow
the header. Record 0 is a header alone: its first label is the number of the last image plus one.
"""

import os
import struct

import numpy as np

from trainers.datasets import base

__all__ = ["RecordIO"]

_MAGIC = 0xCED7230A
_HEADER = struct.Struct("<IfQQ")


class RecordIO:
    """The images of a `.rec` file, read by number through its `.idx`.

    Use as a context manager, or call `close`.

    Args:
        path: the folder with `train.rec` and `train.idx`, or the `.rec` file.

    Attributes:
        numbers: list of the numbers of the images, in order.

    Raises:
        base.DataError: a file is not there, or they are not what they should be.
    """

    def __init__(self, path):
        self._path = os.path.join(path, "train.rec") if os.path.isdir(path) else path
        index = os.path.splitext(self._path)[0] + ".idx"
        for file in (self._path, index):
            if not os.path.isfile(file):
                raise base.DataError(f"recordio: expected the file {file!r}, found none.")
        self._offsets = _read_index(index)
        self._stream = open(self._path, "rb")
        try:
            self.numbers = self._find_numbers()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self):
        return len(self.numbers)

    def sizes(self) -> np.ndarray:
        """Bytes that each image's record takes, `[N]` int64, in the order of `numbers`."""
        starts = np.array([*sorted(self._offsets.values()), os.path.getsize(self._path)])
        own = np.array([self._offsets[number] for number in self.numbers])
        return starts[np.searchsorted(starts, own, side="right")] - own

    def close(self):
        """Closes the file."""
        self._stream.close()

    def read(self, number: int) -> tuple[bytes, int]:
        """An image.

        Args:
            number: one of `numbers`.

        Returns:
            `(file, label)`: the bytes of the image file, and its class.

        Raises:
            base.DataError: there is no such image, or its record is damaged.
        """
        content, labels = self._record(number)
        if not content:
            raise base.DataError(f"{self._path}: record {number} holds no image.")
        return content, int(labels[0])

    def _find_numbers(self):
        """Of a file with a header alone at 0, those before the number it tells; else all."""
        content, labels = self._record(min(self._offsets))
        if content:
            return sorted(self._offsets)
        last = int(labels[0])
        absent = [number for number in range(1, last) if number not in self._offsets]
        if absent:
            raise base.DataError(
                f"{self._path}: the index lacks {len(absent)} of {last - 1} images, the first is "
                f"{absent[0]}: the download is not complete."
            )
        return list(range(1, last))

    def _record(self, number):
        """(content, labels) of a record."""
        if number not in self._offsets:
            raise base.DataError(f"{self._path}: there is no record {number}.")
        self._stream.seek(self._offsets[number])
        data = self._frame(number)
        if len(data) < _HEADER.size:
            raise self._damaged(number)
        flag, label, _, _ = _HEADER.unpack_from(data)
        end = _HEADER.size + 4 * flag
        if len(data) < end:
            raise self._damaged(number)
        return data[end:], struct.unpack_from(f"<{flag}f", data, _HEADER.size) if flag else (label,)

    def _frame(self, number):
        """The bytes of a record; long ones are in several pieces."""
        parts = []
        while True:
            head = self._stream.read(8)
            if len(head) < 8:
                raise self._damaged(number)
            magic, length = struct.unpack("<II", head)
            kind, size = length >> 29, length & (1 << 29) - 1
            part = self._stream.read(size)
            if magic != _MAGIC or len(part) < size:
                raise self._damaged(number)
            self._stream.read(-size % 4)
            parts.append(part)
            if kind in (0, 3):  # Whole, or the last piece.
                # Where the magic number was in the data, it was taken out between the pieces.
                return struct.pack("<I", _MAGIC).join(parts)

    def _damaged(self, number):
        return base.DataError(
            f"{self._path}: record {number} is damaged or cut short: download it again."
        )


def _read_index(path):
    """Place in the file by number, from lines of both."""
    offsets = {}
    with open(path, encoding="ascii", errors="replace") as lines:
        for line in lines:
            fields = line.split()
            if len(fields) != 2 or not (fields[0].isdecimal() and fields[1].isdecimal()):
                raise base.DataError(f"{path}: expected lines of two numbers; found {line[:60]!r}.")
            offsets[int(fields[0])] = int(fields[1])
    if not offsets:
        raise base.DataError(f"{path} is empty: download it again.")
    return offsets
