"""Retrieval metrics: does a query's list of neighbours begin with its own class?

Each query ranks the gallery by cosine similarity. Without a gallery the protocol is leave-one-out:
every row queries all the others. Ties are broken by gallery row, so results are the same on any
device and with any chunk size (see `circle_tf.evaluation.neighbours`).

Queries whose class has no reference in the gallery (R = 0) cannot be answered: every metric leaves
them out, and `retrieval_report` counts them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation.neighbours import (
    as_rows,
    check_k,
    check_labels,
    iterate_neighbours,
    nearest_neighbours,
)
from circle_tf.utils import checks

__all__ = [
    "mean_average_precision_at_r",
    "nearest_neighbours",
    "precision_at_1",
    "r_precision",
    "recall_at_k",
    "retrieval_report",
]


def recall_at_k(
    embeddings: ArrayLike,
    labels: ArrayLike,
    k: int = 1,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> float:
    """Share of queries with at least one reference of their class among the k nearest.

    `mean_q(any(rel_q(i) for i in 1..k))`, as in the tables of CUB-200, Cars196 and SOP.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        k: int, 1 to the number of gallery rows (leave-one-out: one less).
        gallery: `[N, D]` rows to look up in; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row (named), `k` out of
            range, or no query that has a reference of its class.

    Example:
        >>> recall_at_k([[9, 0], [8, 1], [0, 9], [7, 2]], [7, 7, 8, 8], 3)
        1.0
    """
    checks.single(k, "k", instead="retrieval_report(..., ks=...)")
    task = _prepare(embeddings, labels, gallery, gallery_labels)
    k = check_k(k, queries=task.queries, gallery=task.gallery)
    chunks = task.relevance(np.full(len(task.rows), k), chunk_size)
    return float(np.mean(np.concatenate([relevant.any(axis=1) for _, relevant in chunks])))


def precision_at_1(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> float:
    """Share of queries whose nearest neighbour is of their class; equals recall at 1.

    With one reference of each class as the gallery this is one-shot accuracy.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, D]` rows to look up in; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: as `recall_at_k`.

    Example:
        >>> gallery, ids = [[1, 1], [2, 0]], [4, 3]
        >>> precision_at_1([[1, 0], [5, 6]], [3, 4], gallery=gallery, gallery_labels=ids)
        1.0
    """
    return recall_at_k(
        embeddings,
        labels,
        1,
        gallery=gallery,
        gallery_labels=gallery_labels,
        chunk_size=chunk_size,
    )


def r_precision(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> float:
    """Share of the R nearest that are of the query's class, R being all there are.

    `mean_q(sum(rel_q(i) for i in 1..R) / R)`, R = number of references of the query's class.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, D]` rows to look up in; None for leave-one-out (R does not count the query).
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: as `recall_at_k`.

    References:
        Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, section 3.2.

    Example:
        >>> r_precision([[9, 0]], [7], gallery=[[9, 1], [9, 2], [0, 9]], gallery_labels=[7, 8, 7])
        0.5
    """
    report = retrieval_report(
        embeddings,
        labels,
        gallery=gallery,
        gallery_labels=gallery_labels,
        ks=(),
        chunk_size=chunk_size,
    )
    return report["r_precision"]


def mean_average_precision_at_r(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> float:
    """MAP@R: R-precision that also asks for the right ones to come first.

    `mean_q(sum(P_q(i) * rel_q(i) for i in 1..R) / R)`, where `P_q(i)` is the precision of the
    first i neighbours and R the number of references of the query's class.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, D]` rows to look up in; None for leave-one-out (R does not count the query).
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: as `recall_at_k`.

    References:
        Musgrave et al., "A Metric Learning Reality Check", ECCV 2020, section 3.2.

    Example:
        >>> gallery, ids = [[9, 1], [9, 2], [9, 3], [0, 9]], [8, 7, 7, 8]
        >>> mean_average_precision_at_r([[9, 0]], [7], gallery=gallery, gallery_labels=ids)
        0.25
    """
    report = retrieval_report(
        embeddings,
        labels,
        gallery=gallery,
        gallery_labels=gallery_labels,
        ks=(),
        chunk_size=chunk_size,
    )
    return report["mean_average_precision_at_r"]


def retrieval_report(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    gallery: ArrayLike | None = None,
    gallery_labels: ArrayLike | None = None,
    ks: int | Iterable[int] = (1,),
    chunk_size: int | None = None,
) -> dict[str, float]:
    """All metrics of this module from one sweep over the gallery.

    Args:
        embeddings: `[Q, D]` queries of any real dtype and scale, array or tensor.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, D]` rows to look up in; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        ks: ints, or one, the k of each `recall_at_k` wanted.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        dict of floats 0 to 1: `recall_at_{k}` for each k, `precision_at_1`, `r_precision`,
        `mean_average_precision_at_r`; and two counts (int): `queries`, those with a reference of
        their class, over which the means are taken, and `queries_without_match`, left out.

    Raises:
        ValueError: as `recall_at_k`.

    Example:
        >>> report = retrieval_report([[9, 0], [8, 1], [0, 9], [7, 2]], [7, 7, 8, 8], ks=(1, 3))
        >>> report["recall_at_1"], report["recall_at_3"], report["queries"]
        (0.75, 1.0, 4)
    """
    task = _prepare(embeddings, labels, gallery, gallery_labels)
    ks = [check_k(k, queries=task.queries, gallery=task.gallery) for k in checks.several(ks)]
    depths = np.maximum(task.references[task.rows], max(ks, default=1))
    scores = [
        _scores(relevant, task.references[rows])
        for rows, relevant in task.relevance(depths, chunk_size)
    ]
    first_hit, precision, average_precision = np.concatenate(scores, axis=1)
    return {
        **{f"recall_at_{k}": float(np.mean(first_hit <= k)) for k in ks},
        "precision_at_1": float(np.mean(first_hit == 1)),
        "r_precision": float(np.mean(precision)),
        "mean_average_precision_at_r": float(np.mean(average_precision)),
        "queries": len(task.rows),
        "queries_without_match": len(task.references) - len(task.rows),
    }


def _scores(relevant, references):
    """`[3, c]`: rank of the first hit (inf without one), R-precision, average precision at R."""
    ranks = np.arange(1, relevant.shape[1] + 1)
    first_hit = np.where(relevant.any(axis=1), relevant.argmax(axis=1) + 1.0, np.inf)
    within = relevant & (ranks <= references[:, None])
    hits = np.cumsum(within, axis=1)
    average_precision = np.sum(hits / ranks, axis=1, where=within) / references
    return np.stack([first_hit, hits[:, -1] / references, average_precision])


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """Checked queries and gallery (None: leave-one-out)."""

    queries: np.ndarray
    gallery: np.ndarray | None
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    references: np.ndarray  # [Q] R of each query

    @functools.cached_property
    def rows(self):
        """Queries that have a reference, those with few first: chunks of like depth."""
        rows = np.argsort(self.references, kind="stable")
        return rows[np.searchsorted(self.references[rows], 1) :]

    def relevance(self, depths, chunk_size):
        """Yields `(rows, relevant [c, depth] bool)` of the queries that have a reference."""
        for rows, indices, _ in iterate_neighbours(
            self.queries, self.rows, depths, gallery=self.gallery, chunk_size=chunk_size
        ):
            yield rows, self.gallery_ids[indices] == self.query_ids[rows, None]


def _prepare(embeddings, labels, gallery, gallery_labels):
    queries = as_rows(embeddings, name="embeddings")
    gallery = None if gallery is None else as_rows(gallery, name="gallery")
    ids = check_labels(queries, labels, gallery=gallery, gallery_labels=gallery_labels)
    return _Task(queries, gallery, *ids)
