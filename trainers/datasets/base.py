"""What a data set is to the commands: splits of uint8 images with whole-number labels."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from circle_tf.data import pipeline
from circle_tf.utils import errors, image_files

__all__ = ["DataError", "Dataset", "Split", "findings", "relabel", "sentence_list"]


class DataError(errors.UserError):
    """The data cannot be used as it stands."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled examples, in memory or read when asked for.

    Args:
        examples: images `[N, H, W, C]` uint8, or a sequence of N file paths, or a
            `circle_tf.records.RecordFiles` of N records (or what has its `len`, `take`, `fetch`
            and `where`).
        labels: class of each example `[N]`, in `[0, len(class_names))`.
        class_names: name of each class, also of classes that happen to have no example.
        decode: for paths and records, `fn(bytes of one file or record) -> [H, W, C] uint8` in
            TensorFlow operations; None for images in memory.
        cameras: number of the camera of each example `[N]`, in re-identification; else None.
        identities: a text for each example `[N]` that another example has not, the same on every
            machine; None where only the number of examples is known.
        fingerprints: a text for each example `[N]` that changes when its content does; None of
            images in memory.

    Raises:
        DataError: lengths differ, or a label has no class name.

    Example:
        >>> import numpy as np
        >>> split = Split(np.zeros([2, 4, 4, 1], np.uint8), np.array([0, 1]), ("cat", "dog"))
        >>> len(split), split.images([1]).shape
        (2, (1, 4, 4, 1))
    """

    examples: Any
    labels: np.ndarray
    class_names: tuple[str, ...]
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None
    cameras: np.ndarray | None = None
    identities: np.ndarray | None = None
    fingerprints: np.ndarray | None = None

    def __post_init__(self):
        labels = np.asarray(self.labels, np.int64)
        object.__setattr__(self, "labels", labels)
        if labels.shape != (len(self.examples),):
            raise DataError(
                f"Expected one label for each of {len(self.examples)} examples, "
                f"found labels of shape {labels.shape}."
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < len(self.class_names):
            raise DataError(
                f"Expected labels from 0 to {len(self.class_names) - 1}, one per class name, "
                f"found {labels.min()} to {labels.max()}."
            )

    def __len__(self):
        return len(self.examples)

    def images(self, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Decodes examples into memory, for evaluation and pictures.

        Args:
            indices: rows wanted `[n]`, in the order wanted; None for all.

        Returns:
            Images `[n, H, W, C]` uint8.

        Raises:
            DataError: one cannot be decoded; it is named.
        """
        rows = np.arange(len(self)) if indices is None else np.asarray(indices, np.int64)
        if self.decode is None:
            return np.asarray(self.examples)[rows]
        examples = pipeline.as_examples(self.examples, decode=self.decode)
        found = tf.data.Dataset.from_tensor_slices(rows).batch(64)
        found = found.map(lambda rows: pipeline.gather(examples, rows)).unbatch()
        decode = pipeline.decoder(examples, decode=self.decode)
        images = found.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        images = pipeline.on_own_threads(images)
        with self.naming_unreadable():
            decoded = list(images.as_numpy_iterator())
        empty = np.zeros([0, *(side or 0 for side in images.element_spec.shape)], np.uint8)
        return np.stack(decoded) if decoded else empty

    def of_classes(self, classes: Sequence[int] | np.ndarray) -> "Split":
        """The examples of some classes, which are numbered anew in the order of their labels.

        Example:
            >>> import numpy as np
            >>> images = np.zeros([3, 4, 4, 1], np.uint8)
            >>> split = Split(images, np.array([0, 1, 2]), ("a", "b", "c"))
            >>> split.of_classes([2, 0]).class_names
            ('a', 'c')
        """
        kept = np.unique(classes)
        rows = np.flatnonzero(np.isin(self.labels, kept))
        take = getattr(self.examples, "take", None)  # Of arrays, and of records.
        return dataclasses.replace(
            self,
            examples=take(rows, axis=0) if isinstance(self.examples, np.ndarray) else take(rows),
            labels=relabel(self.labels[rows], classes=kept),
            class_names=tuple(self.class_names[label] for label in kept),
            cameras=None if self.cameras is None else self.cameras[rows],
            identities=None if self.identities is None else self.identities[rows],
        )

    @contextlib.contextmanager
    def naming_unreadable(self) -> Iterator[None]:
        """Where examples are decoded: of an error that one of them causes, tells which one it is.

        Raises:
            DataError: an example cannot be decoded.
        """
        try:
            yield
        except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
            row = None if self.decode is None else self._first_unreadable()
            if row is None:  # The error is of something else.
                raise
            is_path = isinstance(self.examples, Sequence | np.ndarray)
            name = str(self.examples[row]) if is_path else self.examples.where(row)
            name = image_files.printable(name)
            raise DataError(
                f"{name} cannot be read: {errors.reason(error)} Remove or repair it; with "
                "--config.dataset.verify=True all such files are left out."
            ) from error

    def _first_unreadable(self):
        """The row of the first example that cannot be decoded; None if all can be."""
        examples = pipeline.as_examples(self.examples, decode=self.decode)
        decode = pipeline.decoder(examples, decode=self.decode)

        # Of the pixels, not of the shape, which is known without decoding.
        def brightest(row):
            return row, tf.reduce_max(decode(pipeline.gather(examples, row[None])[0]))

        rows = tf.data.Dataset.range(len(self)).map(brightest, tf.data.AUTOTUNE, deterministic=True)
        count = 0
        for count, (row, _) in enumerate(rows.ignore_errors().as_numpy_iterator(), 1):
            if row != count - 1:
                return count - 1
        return count if count < len(self) else None


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Classes to train on and classes never trained on.

    Args:
        name: as in the config.
        train: training examples; labels are `0 .. C-1`.
        test: examples of unseen classes, for leave-one-out retrieval.
        queries: examples of unseen classes to be looked up in `gallery`, or None when the data
            has no such protocol. Labels of queries and gallery agree with each other.
        gallery: examples to look up in.
        image_shape: `(H, W, C)` of every image.
        report: what was found, in lines to print.
    """

    name: str
    train: Split
    test: Split
    queries: Split | None
    gallery: Split | None
    image_shape: tuple[int, int, int]
    report: str


def relabel(labels: np.ndarray, *, classes: np.ndarray) -> np.ndarray:
    """Labels as positions in `classes`, which must be sorted and contain every label.

    Example:
        >>> relabel(np.array([7, 5, 7]), classes=np.array([5, 7]))
        array([1, 0, 1])
    """
    return np.searchsorted(classes, labels).astype(np.int64)


def sentence_list(items: Sequence[Any], *, limit: int = 10) -> str:
    """Items joined by commas, the rest counted.

    Example:
        >>> sentence_list(["a", "b", "c"], limit=2)
        'a, b and 1 more'
    """
    shown = ", ".join(str(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


def findings(problems: Sequence[str], *, none: str) -> list[str]:
    """The end of a report on data, in lines.

    Args:
        problems: what is wrong, a line each.
        none: what to say when nothing is.

    Example:
        >>> findings(["a.png: unreadable"], none="All is there.")
        ['Wrong or odd:', '  a.png: unreadable']
    """
    return ["Wrong or odd:", *(f"  {problem}" for problem in problems)] if problems else [none]
