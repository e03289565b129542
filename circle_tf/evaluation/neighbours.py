"""Exact nearest neighbours by cosine, in chunks of queries, the same whatever the chunk.

Retrieval metrics are decided by the order of neighbours: exact_search.py sees to it that no chunk,
device or order of addition moves it.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.ops import pairs
from circle_tf.utils import checks, sizes

__all__ = [
    "HighestScores",
    "as_rows",
    "check_dimensions",
    "check_k",
    "check_labels",
    "classes_of",
    "iterate_neighbours",
    "iterate_scores",
    "nearest_neighbours",
]

# Largest memory for the similarities of one chunk and for what is made from its neighbours.
_CHUNK_BYTES = sizes.BUDGET_BYTES
_CHUNK_ROWS = 1024  # More make the product no faster.
_MERGED_AT = 2**16  # scores


def nearest_neighbours(
    embeddings: ArrayLike,
    k: int = 1,
    *,
    gallery: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query by cosine similarity, nearest first.

    Equal similarities are ordered by gallery row, lower first. Similarities are exact to 2e-8 for
    unit rows (embeddings are rounded to multiples of 2^-26) and do not depend on `chunk_size`.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        k: int, 1 to the number of gallery rows (leave-one-out: one less).
        gallery: `[N, D]` rows to look up in. None: leave-one-out, the queries are the gallery and
            each row is left out of its own list (by its index: a copy of it stays).
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        `(indices, similarities)`: `[Q, k]` int64 rows of the gallery and `[Q, k]` float32 cosines.
        A row of zeros has similarity 0 to every row.

    Raises:
        ValueError: shapes that do not fit, no rows, NaN or inf in a row, `k` out of range.

    Example:
        >>> indices, similarities = nearest_neighbours([[3.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
        >>> indices[:, 0].tolist(), similarities[:, 0].round(3).tolist()
        ([2, 0, 0], [1.0, 0.707..., 1.0])
    """
    queries = as_rows(embeddings, name="embeddings")
    gallery = None if gallery is None else as_rows(gallery, name="gallery")
    k = check_k(k, queries=queries, gallery=gallery)
    rows = np.arange(len(queries))
    depths = np.full(len(queries), k)
    indices = np.empty([len(queries), k], np.int64)
    similarities = np.empty([len(queries), k], np.float32)
    for chunk, nearest, cosines in iterate_neighbours(
        queries, rows, depths, gallery=gallery, chunk_size=chunk_size
    ):
        indices[chunk], similarities[chunk] = nearest, cosines
    return indices, similarities


def iterate_neighbours(queries, rows, depths, *, gallery=None, chunk_size=None):
    """Neighbours of some queries, chunk by chunk: memory is bounded however many there are.

    Args:
        queries: `[Q, D]` array, as of `as_rows`.
        rows: `[n]` int, the queries wanted, in the order wanted.
        depths: `[n]` int, checked by `check_k`: how many neighbours each needs. A chunk gets the
            most that any of its queries needs, so keep like with like.
        gallery: `[N, D]` array, as of `as_rows`; None for leave-one-out.
        chunk_size: int, queries at a time; None chooses by memory.

    Yields:
        `(rows, indices, similarities)` of a chunk: `[c]`, `[c, depth]` int32, `[c, depth]` float64.

    Raises:
        ValueError: dimensions differ, NaN or inf in a row.

    Example:
        >>> queries = as_rows(np.eye(3), name="embeddings")
        >>> chunks = iterate_neighbours(queries, [0, 1, 2], [2, 2, 2], chunk_size=2)
        >>> [(rows.tolist(), indices.tolist()) for rows, indices, _ in chunks]
        [([0, 1], [[1, 2], [0, 2]]), ([2], [[0, 1]])]
    """
    rows, depths = np.asarray(rows), np.asarray(depths)
    keys, name = (queries, "embeddings") if gallery is None else (gallery, "gallery")
    check_dimensions(queries, keys, names=("embeddings", "gallery"))
    row_bytes = 8 * len(keys) + 64 * int(depths.max(initial=1))
    size = _chunk_rows(chunk_size, row_bytes=row_bytes)
    if chunk_size is None:
        size = min(size, _CHUNK_ROWS)
    keys = exact_search.on_grid(keys, name=name)
    search = exact_search.ExactSearch(keys)
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        depth = int(depths[start : start + size].max())
        if gallery is None:
            yield chunk, *search(keys[chunk], depth, left_out=chunk)
        else:
            anchors = exact_search.on_grid(queries[chunk], name="embeddings", rows=chunk)
            yield chunk, *search(anchors, depth)


def iterate_scores(queries, gallery, *, chunk_size=None):
    """All similarities of each query, for protocols that count in the whole list.

    Args:
        queries: `[Q, D]` float64, as of `exact_search.on_grid`.
        gallery: `[N, D]` float64, as of `exact_search.on_grid`.
        chunk_size: int, queries at a time; None chooses by memory.

    Yields:
        `(row, scores)` of a query: int, and `[N]` float64 cosines, exact on the grid.

    Raises:
        ValueError: `chunk_size` below 1.

    Example:
        >>> rows = exact_search.on_grid(np.eye(2), name="embeddings")
        >>> [(row, scores.tolist()) for row, scores in iterate_scores(rows, rows)]
        [(0, [1.0, 0.0]), (1, [0.0, 1.0])]
    """
    size = _chunk_rows(chunk_size, row_bytes=8 * len(gallery))
    for start in range(0, len(queries), size):
        yield from enumerate(queries[start : start + size] @ gallery.T, start)


class HighestScores:
    """The highest of many scores that come a row at a time, and what belongs to each.

    Args:
        count: int, how many to hold.

    Example:
        >>> highest = HighestScores(2)
        >>> highest.add(np.array([0.1, 0.9, 0.4]), np.array([0, 1, 2]))
        >>> highest.add(np.array([0.5]), np.array([7]))
        >>> scores, rows = highest.sorted()
        >>> scores.tolist(), rows.tolist(), float(highest.at(1)), float(highest.at(2))
        ([0.9, 0.5], [1, 7], 0.5, -inf)
    """

    def __init__(self, count):
        self._count, self._floor, self._waiting, self._parts = count, -np.inf, 0, []

    def add(self, scores, *columns):
        """Scores `[n]`, and columns `[n]` of what belongs to them, as many each time."""
        kept = scores > self._floor
        self._parts.append([values[kept] for values in (scores, *columns)])
        self._waiting += int(kept.sum())
        if self._waiting > self._count + max(self._count, _MERGED_AT):
            self._parts = [self.sorted()]
            self._waiting = len(self._parts[0][0])
            self._floor = self._parts[0][0][-1] if self._count else np.inf

    def sorted(self):
        """`[scores, *columns]` of those held, the highest first; of equal ones the first come."""
        columns = [np.concatenate(values) for values in zip(*self._parts, strict=True)]
        order = np.argsort(-columns[0], kind="stable")[: self._count]
        return [values[order] for values in columns]

    def at(self, place):
        """The score with so many before it; -inf where there is none."""
        scores = self.sorted()[0]
        return scores[place] if place < len(scores) else -np.inf


def as_rows(embeddings, *, name):
    """Embeddings as a checked array.

    Args:
        embeddings: `[N, D]` array, tensor or nested list of real numbers.
        name: str, what to call them in errors.

    Returns:
        `[N, D]` array, not copied where that is possible.

    Raises:
        ValueError: another shape, no rows, no columns.

    Example:
        >>> as_rows([[1, 2]], name="gallery").shape
        (1, 2)
    """
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(
            f"{name} must have shape [N, D], at least one row of at least one number; "
            f"found shape {list(rows.shape)}."
        )
    return rows


def check_k(k, *, queries, gallery):
    """Checks a number of neighbours against how many there are.

    Args:
        k: int.
        queries: `[Q, D]` array.
        gallery: `[N, D]` array; None for leave-one-out.

    Returns:
        int k.

    Raises:
        ValueError: k below 1 or above the number of rows that a query can find.

    Example:
        >>> check_k(2, queries=np.eye(3), gallery=None)
        2
    """
    most = len(queries) - 1 if gallery is None else len(gallery)
    if not _is_within(k, most):
        besides = " besides the query itself" if gallery is None else ""
        raise ValueError(
            f"k must be a whole number from 1 to {most}, the number of gallery rows{besides}; "
            f"found {k}."
        )
    return operator.index(k)


def _is_within(k, most):
    try:
        return 1 <= operator.index(k) <= most
    except TypeError:  # No whole number.
        return False


def check_dimensions(first, second, *, names):
    """Checks that rows can be multiplied with each other.

    Args:
        first: `[Q, D]` array.
        second: `[N, D]` array.
        names: two str, what to call them in errors.

    Raises:
        ValueError: the numbers of columns differ.
    """
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{names[0]} and {names[1]} must have the same dimension; "
            f"found {first.shape[1]} and {second.shape[1]}."
        )


def classes_of(labels, rows, *, use):
    """The classes of rows that are to be compared within and across classes.

    Args:
        labels: `[N]` or `[N, 1]` integer ids of any width.
        rows: `[N, D]` array, as of `as_rows`.
        use: str, the function that compares, for errors.

    Returns:
        `(names, identity, sizes)`: `[I]` ids, sorted; `[N]` position of each row's; `[I]` rows.

    Raises:
        ValueError: lengths that differ, one class only, no class with two rows.

    Example:
        >>> names, identity, sizes = classes_of([7, 5, 7], np.eye(3), use="calibrate")
        >>> names.tolist(), identity.tolist(), sizes.tolist()
        ([5, 7], [1, 0, 1], [1, 2])
    """
    ids = pairs.ids_of_rows(labels, rows, name="labels")
    names, identity, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    if len(names) < 2 or sizes.max() < 2:
        raise ValueError(
            f"{use} needs two classes or more, and one with two examples or more; found "
            f"{len(names)} classes, of at most {sizes.max()} examples."
        )
    return names, identity, sizes


def check_labels(queries, labels, *, gallery=None, gallery_labels=None):
    """Checks that labels fit their rows and that there is something to be found.

    Args:
        queries: `[Q, ...]` embeddings or images; only their number matters.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, ...]` embeddings or images; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.

    Returns:
        `(query_ids, gallery_ids, references)`: `[Q]` and `[N]` int64, and `[Q]` int64, R of each
        query: how many references of its class it can find.

    Raises:
        ValueError: lengths that differ, a gallery without labels or labels without a gallery, no
            query with a reference.

    Example:
        >>> check_labels(np.zeros([3, 2]), [7, 7, 8])[2].tolist()
        [1, 1, 0]
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels must be given together, or neither.")
    query_ids = pairs.ids_of_rows(labels, queries, name="labels")
    if gallery is None:
        gallery_ids, references = query_ids, _counts(query_ids, query_ids) - 1
    else:
        gallery_ids = pairs.ids_of_rows(gallery_labels, gallery, name="gallery_labels")
        references = _counts(query_ids, gallery_ids)
    if not references.any():
        raise ValueError(_no_match_message(query_ids, gallery_ids, gallery is None))
    return query_ids, gallery_ids, references


def _counts(query_ids, gallery_ids):
    """`[Q]`: how often each query's id is in the gallery."""
    classes, counts = np.unique(gallery_ids, return_counts=True)
    places = np.minimum(np.searchsorted(classes, query_ids), len(classes) - 1)
    return np.where(classes[places] == query_ids, counts[places], 0)


def _no_match_message(query_ids, gallery_ids, leave_one_out):
    if leave_one_out:
        return (
            f"No query has a match: each of the {len(query_ids)} rows is the only one of its "
            "class. Leave-one-out retrieval needs classes of two rows or more."
        )
    return (
        "No query has a match: queries and gallery have no class in common. Query labels begin "
        f"{query_ids[:5].tolist()}, gallery labels {gallery_ids[:5].tolist()}."
    )


def _chunk_rows(chunk_size, *, row_bytes):
    """How many queries to take at a time."""
    if chunk_size is None:
        return max(1, _CHUNK_BYTES // row_bytes)
    return checks.whole_number(chunk_size, "chunk_size", least=1)
