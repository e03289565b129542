"""Exact nearest neighbours by cosine, in chunks of queries, the same whatever the chunk.

Retrieval metrics are decided by the order of neighbours: exact_search.py sees to it that no chunk,
device or order of addition moves it.
"""

import operator
from collections.abc import Iterator

import numpy as np

from circle_tf.evaluation import exact_search

__all__ = ["as_rows", "check_k", "iterate_neighbours", "nearest_neighbours"]

# Largest memory for the similarities of one chunk and for what is made from its neighbours.
_CHUNK_BYTES = 2**28
_CHUNK_ROWS = 1024  # More make the product no faster.


def nearest_neighbours(embeddings, k=1, *, gallery=None, chunk_size=None):
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
    for part, found, values in iterate_neighbours(
        queries, rows, depths, gallery=gallery, chunk_size=chunk_size
    ):
        indices[part], similarities[part] = found, values
    return indices, similarities


def iterate_neighbours(queries, rows, depths, *, gallery=None, chunk_size=None) -> Iterator:
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
    _check_dimensions(queries, keys)
    size = _chunk_size(chunk_size, len(keys), depths)
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
    if not 1 <= operator.index(k) <= most:
        besides = " besides the query itself" if gallery is None else ""
        raise ValueError(
            f"k must be from 1 to {most}, the number of gallery rows{besides}; found {k}."
        )
    return operator.index(k)


def _chunk_size(chunk_size, gallery_rows, depths):
    if chunk_size is None:
        deepest = int(depths.max(initial=1))
        return min(_CHUNK_ROWS, max(1, _CHUNK_BYTES // (8 * gallery_rows + 64 * deepest)))
    if operator.index(chunk_size) < 1:
        raise ValueError(f"chunk_size must be at least 1; found {chunk_size}.")
    return operator.index(chunk_size)


def _check_dimensions(queries, gallery):
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            "embeddings and gallery must have the same dimension; "
            f"found {queries.shape[1]} and {gallery.shape[1]}."
        )
