"""Which classes look alike: the nearest ones of each by their mean embeddings."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows, nearest_neighbours
from circle_tf.ops import pairs
from circle_tf.utils import checks

__all__ = ["nearest_classes"]

_ROWS = 2**14  # as float64 at a time


def nearest_classes(
    embeddings: ArrayLike, labels: ArrayLike, count: int, *, chunk_size: int | None = None
) -> np.ndarray:
    """The classes that look most like each class, by cosine similarity of their means.

    A class's mean is that of its embeddings, normalised before; a few examples of each class are
    enough. `PKSampler` and `pk_dataset` make batches of classes that look alike from the result.

    Args:
        embeddings: `[N, D]` of any real dtype and scale, array or tensor.
        labels: `[N]` or `[N, 1]` integer ids of any width, of C classes.
        count: int, 1 to C - 1: how many other classes to find for each.
        chunk_size: int, classes at a time; None chooses by memory (about 256 MB). The result does
            not depend on it.

    Returns:
        `[C, count]` int64, nearest first: classes by their places among the sorted distinct labels.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row, one class only, `count`
            out of range.

    Example:
        >>> rows = [[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.6, 0.4]]
        >>> nearest_classes(rows, [5, 5, 7, 9], 1).tolist()
        [[2], [2], [0]]
    """
    rows = as_rows(embeddings, name="embeddings")
    ids = pairs.ids_of_rows(labels, rows, name="labels")
    classes, places = np.unique(ids, return_inverse=True)
    count = checks.whole_number(count, "count", least=1)
    if count >= len(classes):
        raise ValueError(
            f"count must be less than the number of classes, as each has {len(classes) - 1} "
            f"others; found {count}."
        )
    sums = np.zeros([len(classes), rows.shape[1]])
    for start in range(0, len(rows), _ROWS):
        part = np.arange(start, min(start + _ROWS, len(rows)))
        unit = exact_search.on_grid(rows[part], name="embeddings", rows=part)
        np.add.at(sums, places[part], unit)
    return nearest_neighbours(sums, count, chunk_size=chunk_size)[0]
