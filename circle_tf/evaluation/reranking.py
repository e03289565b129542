"""k-reciprocal re-ranking of a gallery, as re-identification reports it beside plain ranking."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import (
    as_rows,
    check_dimensions,
    nearest_neighbours,
)
from circle_tf.utils import checks

__all__ = ["k_reciprocal_distances"]

_ROWS = 1024  # At a time.


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
        chunk_size: int, rows at a time in the search; None chooses by memory (about 256 MB).

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
    largest = _largest_distances(unit)
    sets = _weighted(_expanded(nearest, k1), unit, largest)
    sets = _averaged(sets, nearest[:, :k2])
    result = np.empty((len(queries), len(gallery)), np.float32)
    shared = _Shared(sets, first=len(queries))
    for part in _parts(len(queries)):
        plain = np.maximum(2 - 2 * (unit[part] @ unit[len(queries) :].T), 0)
        plain /= largest[part, None]
        for row, distances in zip(range(part.start, part.stop), plain, strict=True):
            both = shared(row)
            result[row] = (1 - weight) * (1 - both / (2 - both)) + weight * distances
    return result


class _Sets(NamedTuple):
    """Sets of rows, the entries of one after those of the other: whose, which row, what weight."""

    owners: np.ndarray  # In rising order.
    members: np.ndarray
    weights: np.ndarray | None
    count: int  # Sets; some may be empty.

    def lengths(self):
        return np.bincount(self.owners, minlength=self.count)


def _largest_distances(unit):
    """Squared distance of each row to the one furthest away: the nearest to its opposite."""
    search, found = exact_search.ExactSearch(unit), []
    for part in _parts(len(unit)):
        _, cosines = search(-unit[part], 1)
        found.append(2 + 2 * cosines[:, 0])
    return np.maximum(np.concatenate(found), np.finfo(float).tiny)


def _reciprocal(nearest, k):
    """`[n, k + 1]`: those of each row's nearest that have it among theirs, and -1 for others.

    The first neighbour is the row itself.
    """
    forward = nearest[:, : k + 1]
    found = np.empty_like(forward)
    for part in _parts(len(nearest)):
        rows = np.arange(part.start, part.stop)[:, None, None]
        has_it = np.any(forward[forward[part]] == rows, axis=2)
        found[part] = np.where(has_it, forward[part], -1)
    return found


def _expanded(nearest, k1):
    """Sets of reciprocal neighbours, and of theirs where more than two thirds are shared."""
    reciprocal, half = _reciprocal(nearest, k1), _reciprocal(nearest, round(k1 / 2))
    owners, members = [], []
    for part in _parts(len(nearest)):
        own = reciprocal[part]
        theirs = half[own]  # [c, k1 + 1, k1 / 2 + 1]; of a -1 some row's, which is left out below.
        shared = np.any(theirs[..., None] == own[:, None, None, :], axis=3) & (theirs >= 0)
        is_like = shared.sum(axis=2) > 2 / 3 * (theirs >= 0).sum(axis=2)
        added = np.where((is_like & (own >= 0))[..., None], theirs, -1)
        every = np.concatenate([own, added.reshape(len(own), -1)], axis=1)
        every.sort(axis=1)
        is_new = every >= 0
        is_new[:, 1:] &= every[:, 1:] != every[:, :-1]
        owners.append(part.start + np.nonzero(is_new)[0])
        members.append(every[is_new])
    return _Sets(np.concatenate(owners), np.concatenate(members), None, len(nearest))


def _weighted(sets, unit, largest):
    """The sets with weights that fall with the distance and sum to 1."""
    weights = np.empty(len(sets.members))
    for part in _parts(len(weights), size=4 * _ROWS):
        owners, members = sets.owners[part], sets.members[part]
        cosines = np.einsum("nd,nd->n", unit[owners], unit[members])
        weights[part] = np.exp(-np.maximum(2 - 2 * cosines, 0) / largest[owners])
    totals = np.bincount(sets.owners, weights, minlength=sets.count)
    return sets._replace(weights=weights / totals[sets.owners])


def _averaged(sets, nearest):
    """For each row the mean of the sets of the nearest, `[n, k2]`."""
    lengths = sets.lengths()
    starts = np.cumsum(lengths) - lengths
    owners, members, weights = [], [], []
    for part in _parts(len(nearest)):
        rows = nearest[part].ravel()
        places = _ranges(starts[rows], lengths[rows])
        whose = np.repeat(np.arange(part.start, part.stop), nearest.shape[1])
        keys = np.repeat(whose, lengths[rows]) * sets.count + sets.members[places]
        keys, where = np.unique(keys, return_inverse=True)
        owners.append(keys // sets.count)
        members.append(keys % sets.count)
        weights.append(np.bincount(where, sets.weights[places]) / nearest.shape[1])
    return _Sets(*(np.concatenate(found) for found in (owners, members, weights)), sets.count)


class _Shared:
    """What the set of a row has in common with the sets of rows `first`, `first + 1`, ...

    Called with a row: `[N]` sums of the smaller weights. Looks only at members that are shared.
    """

    def __init__(self, sets, *, first):
        self._sets, self._size = sets, sets.count - first
        self._ends = np.cumsum(sets.lengths())
        others = np.arange(np.searchsorted(sets.owners, first), len(sets.owners))
        order = others[np.argsort(sets.members[others], kind="stable")]
        self._rows, self._weights = sets.owners[order] - first, sets.weights[order]
        self._lengths = np.bincount(sets.members[order], minlength=sets.count)
        self._starts = np.cumsum(self._lengths) - self._lengths

    def __call__(self, row):
        own = slice(self._ends[row - 1] if row else 0, self._ends[row])
        members, weights = self._sets.members[own], self._sets.weights[own]
        lengths = self._lengths[members]
        places = _ranges(self._starts[members], lengths)
        smaller = np.minimum(np.repeat(weights, lengths), self._weights[places])
        return np.bincount(self._rows[places], smaller, minlength=self._size)


def _ranges(starts, lengths):
    """`start, start + 1, ...` of each, so many of each, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(starts - before, lengths)


def _parts(count, *, size=_ROWS):
    """Slices that cover `count` rows."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
