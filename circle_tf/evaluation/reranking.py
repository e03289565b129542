"""k-reciprocal re-ranking of a gallery, as re-identification reports it beside plain ranking."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import (
    as_rows,
    check_dimensions,
    iterate_scores,
    nearest_neighbours,
)
from circle_tf.utils import checks

__all__ = ["k_reciprocal_distances"]


def k_reciprocal_distances(
    queries: ArrayLike,
    gallery: ArrayLike,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    chunk_size: int | None = None,
) -> np.ndarray:
    """Distances that fall when two images have their nearest neighbours in common.

    `(1 - weight) * jaccard + weight * d`, where `d` is the squared Euclidean distance of unit rows
    as a share of the query's largest, and `jaccard` compares the sets of neighbours that have
    each other among the `k1` nearest, averaged over the `k2` nearest images.

    Memory is that of the `[Q, N]` result and of the neighbours (`(Q + N) * k1` times a small
    number), not `(Q + N)^2` as in the authors' program, whose numbers these are.

    Args:
        queries: `[Q, D]` embeddings of any real dtype and scale.
        gallery: `[N, D]` embeddings.
        k1: int of 1 or more, below Q + N: neighbours of which reciprocal ones are kept.
        k2: int of 1 to k1: images whose sets are averaged.
        weight: float 0 to 1 of the plain distance.
        chunk_size: int, rows at a time; None chooses by memory (about 256 MB).

    Returns:
        `[Q, N]` float32, for `reidentification_report(distances=...)`.

    Raises:
        ValueError: shapes that do not fit, NaN or inf in a row, numbers out of range.

    References:
        Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(9, 4))
        >>> k_reciprocal_distances(rows[:3], rows[3:], k1=4, k2=2).shape
        (3, 6)
    """
    queries, gallery = as_rows(queries, name="queries"), as_rows(gallery, name="gallery")
    check_dimensions(queries, gallery, names=("queries", "gallery"))
    rows = np.concatenate([queries, gallery])
    k1 = checks.whole_number(k1, "k1", least=1)
    k2 = checks.whole_number(k2, "k2", least=1)
    if k1 >= len(rows) or k2 > k1:
        raise ValueError(
            f"k1 must be below Q + N = {len(rows)} and k2 at most k1; found k1={k1}, k2={k2}."
        )
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be 0 to 1; found {weight}.")
    nearest, _ = nearest_neighbours(rows, k1 + 1, gallery=rows, chunk_size=chunk_size)
    unit = exact_search.on_grid(rows, name="rows")
    least = [scores.min() for _, scores in iterate_scores(unit, unit, chunk_size=chunk_size)]
    largest = np.maximum(2 - 2 * np.array(least), np.finfo(float).tiny)  # squared distances
    sets = [_weighted_set(row, nearest, unit, largest, k1) for row in range(len(rows))]
    sets = [_averaged(sets, nearest[row, :k2]) for row in range(len(rows))]
    jaccard = _jaccard(sets[: len(queries)], sets[len(queries) :], count=len(rows))
    plain = _distances(unit[: len(queries)], unit[len(queries) :], largest[: len(queries)])
    return ((1 - weight) * jaccard + weight * plain).astype(np.float32)


def _distances(anchors, keys, largest):
    return np.maximum(2 - 2 * (anchors @ keys.T), 0) / largest[:, None]


def _reciprocal(row, nearest, k):
    """Rows among the k nearest that have `row` among theirs; the first neighbour is the row."""
    forward = nearest[row, : k + 1]
    return forward[np.any(nearest[forward, : k + 1] == row, axis=1)]


def _weighted_set(row, nearest, unit, largest, k1):
    """`(members, weights)`: reciprocal neighbours, and theirs where most are shared."""
    reciprocal = _reciprocal(row, nearest, k1)
    members = reciprocal
    for candidate in reciprocal:
        theirs = _reciprocal(candidate, nearest, round(k1 / 2))
        if len(np.intersect1d(theirs, reciprocal)) > 2 / 3 * len(theirs):
            members = np.concatenate([members, theirs])
    members = np.unique(members)
    weights = np.exp(-_distances(unit[[row]], unit[members], largest[[row]])[0])
    return members, weights / weights.sum()


def _averaged(sets, rows):
    """The mean of some sets."""
    members = np.concatenate([sets[row][0] for row in rows])
    weights = np.concatenate([sets[row][1] for row in rows]) / len(rows)
    members, places = np.unique(members, return_inverse=True)
    return members, np.bincount(places, weights)


def _jaccard(queries, gallery, *, count):
    """`[Q, N]` Jaccard distances; only members that two sets share are looked at."""
    lists = [[] for _ in range(count)]
    for row, (members, weights) in enumerate(gallery):
        for member, weight in zip(members, weights, strict=True):
            lists[member].append((row, weight))
    columns = [np.array(entries).reshape(-1, 2) for entries in lists]
    distances = np.empty((len(queries), len(gallery)))
    for row, (members, weights) in enumerate(queries):
        shared = np.zeros(len(gallery))
        for member, weight in zip(members, weights, strict=True):
            rows, others = columns[member].T
            shared[rows.astype(np.int64)] += np.minimum(weight, others)
        distances[row] = 1 - shared / (2 - shared)
    return distances
