"""Re-identification: CMC, average precision and mINP, with cameras, junk and distractors.

The protocol of Market-1501 and MSMT17. A query's gallery leaves out images of the same identity by
the same camera (they show the same scene) and junk (id -1: bad detections). Distractors (id 0 in
Market-1501) are like any other identity that no query has. Queries that are left without a match
are skipped and counted. Ties are broken by gallery row, as in `circle_tf.retrieval`.

Averages of precision come in two kinds that differ by half a point to a point on Market-1501:
`rectangular` is the mean of the precision at each hit (scikit-learn, most Python code),
`trapezoid` that of the data set's own script, which averages each with the precision before it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows, check_dimensions, iterate_scores
from circle_tf.ops import pairs
from circle_tf.utils import checks

__all__ = [
    "JUNK",
    "average_precision",
    "cmc",
    "inverse_negative_penalty",
    "ranks_of_matches",
    "reidentification_report",
]

JUNK = -1


def reidentification_report(
    queries: ArrayLike,
    query_ids: ArrayLike,
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    *,
    query_cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    ks: int | Iterable[int] = (1, 5, 10),
    distances: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> dict[str, float]:
    """All metrics of this module from one sweep over the gallery.

    Args:
        queries: `[Q, D]` embeddings of any real dtype and scale.
        query_ids: `[Q]` integer identities, none of them -1.
        gallery: `[N, D]` embeddings.
        gallery_ids: `[N]` integer identities; -1 is junk.
        query_cameras: `[Q]` integers; None, with `gallery_cameras`, to leave nothing out by camera.
        gallery_cameras: `[N]` integers.
        ks: ints of 1 or more, or one, the k of each `cmc_at_k` wanted.
        distances: `[Q, N]`, rank by these and not by cosine: see `circle_tf.evaluation.reranking`.
        chunk_size: int, queries at a time; None chooses by memory (about 256 MB).

    Returns:
        dict of floats 0 to 1: `cmc_at_{k}` for each k, `map_rectangular`, `map_trapezoid`, `minp`;
        and two counts (int): `queries`, those with a match, over which the means are taken, and
        `queries_without_match`, left out.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row (named), a junk query,
            or no query with a match.

    References:
        Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015 (CMC, mAP).
        Ye et al., "Deep Learning for Person Re-identification", TPAMI 2021 (mINP).

    Example:
        >>> report = reidentification_report(
        ...     [[1.0, 0.0]], [7], [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]], [7, 8, 7],
        ...     query_cameras=[1], gallery_cameras=[1, 2, 2], ks=(1, 2))
        >>> report["cmc_at_1"], report["cmc_at_2"], report["map_rectangular"]
        (0.0, 1.0, 0.5)
    """
    ks = [checks.whole_number(k, "k", least=1) for k in checks.several(ks)]
    matches = ranks_of_matches(
        queries, query_ids, gallery, gallery_ids, query_cameras=query_cameras,
        gallery_cameras=gallery_cameras, distances=distances, chunk_size=chunk_size,
    )  # fmt: skip
    ranks = [of_query for of_query in matches if len(of_query)]
    if not ranks:
        raise ValueError(
            "No query has a match: no identity of a query is in the gallery, seen by another "
            "camera. Check that the ids of queries and gallery are of one numbering."
        )
    return {
        **{f"cmc_at_{k}": float(np.mean([of_query[0] <= k for of_query in ranks])) for k in ks},
        "map_rectangular": float(np.mean([average_precision(of_query) for of_query in ranks])),
        "map_trapezoid": float(
            np.mean([average_precision(of_query, kind="trapezoid") for of_query in ranks])
        ),
        "minp": float(np.mean([inverse_negative_penalty(of_query) for of_query in ranks])),
        "queries": len(ranks),
        "queries_without_match": len(matches) - len(ranks),
    }


def ranks_of_matches(
    queries, query_ids, gallery, gallery_ids, *, query_cameras=None, gallery_cameras=None,
    distances=None, chunk_size=None,
):  # fmt: skip
    """At which ranks each query finds its identity.

    Args:
        queries: as in `reidentification_report`, and so are the others.
        query_ids: `[Q]`.
        gallery: `[N, D]`.
        gallery_ids: `[N]`.
        query_cameras: `[Q]`, or None.
        gallery_cameras: `[N]`, or None.
        distances: `[Q, N]`, or None.
        chunk_size: int, or None.

    Returns:
        list of Q int64 arrays, rising ranks from 1 on among the rows that the query may find;
        empty for a query without a match.

    Raises:
        ValueError: as `reidentification_report`, but for queries without a match.

    Example:
        >>> ranks_of_matches([[1.0, 0.0]], [7], [[1.0, 0.1], [1.0, 0.0]], [7, -1])
        [array([1])]
    """
    task = _prepare(
        queries, query_ids, gallery, gallery_ids, query_cameras, gallery_cameras, distances
    )
    ranks = []
    for row, scores in task.scores(chunk_size):
        matches, left_out = task.masks(row)
        ranks.append(_ranks(scores, matches, left_out))
    return ranks


def cmc(
    queries: ArrayLike,
    query_ids: ArrayLike,
    gallery: ArrayLike,
    gallery_ids: ArrayLike,
    k: int = 1,
    *,
    query_cameras: ArrayLike | None = None,
    gallery_cameras: ArrayLike | None = None,
    distances: ArrayLike | None = None,
    chunk_size: int | None = None,
) -> float:
    """Cumulative matching characteristic: share of queries with a match among the first k.

    Args:
        queries: as in `reidentification_report`, and so are the others.
        query_ids: `[Q]`.
        gallery: `[N, D]`.
        gallery_ids: `[N]`.
        k: int of 1 or more.
        query_cameras: `[Q]`, or None.
        gallery_cameras: `[N]`, or None.
        distances: `[Q, N]`, or None.
        chunk_size: int, or None.

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: as `reidentification_report`, or k below 1.

    Example:
        >>> gallery, ids = [[1.0, 0.1], [1.0, 0.2]], [8, 7]
        >>> cmc([[1.0, 0.0]], [7], gallery, ids), cmc([[1.0, 0.0]], [7], gallery, ids, 2)
        (0.0, 1.0)
    """
    checks.single(k, "k", instead="reidentification_report(..., ks=...)")
    report = reidentification_report(
        queries, query_ids, gallery, gallery_ids, query_cameras=query_cameras, ks=(k,),
        gallery_cameras=gallery_cameras, distances=distances, chunk_size=chunk_size,
    )  # fmt: skip
    return report[f"cmc_at_{k}"]


def average_precision(ranks, *, kind="rectangular"):
    """Average precision of one query.

    `mean(n / ranks[n-1] for n in 1..len(ranks))`; for `trapezoid` each precision is averaged with
    the one before the hit, `(n-1) / (rank-1)`, which counts as 1 at the first rank.

    Args:
        ranks: `[matches]` rising ranks from 1 on.
        kind: `rectangular` or `trapezoid`.

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: another kind, or no ranks.

    Example:
        >>> round(average_precision([1, 2, 4, 7]), 4)
        0.8304
        >>> round(average_precision([1, 2, 4, 7], kind="trapezoid"), 4)
        0.811
    """
    ranks = np.asarray(ranks, float)
    if not len(ranks):
        raise ValueError("Average precision needs a match; ranks is empty.")
    hits = np.arange(1, len(ranks) + 1)
    precision = hits / ranks
    if kind == "rectangular":
        return float(np.mean(precision))
    if kind != "trapezoid":
        raise ValueError(f"kind must be 'rectangular' or 'trapezoid'; found {kind!r}.")
    before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    return float(np.mean((precision + before) / 2))


def inverse_negative_penalty(ranks):
    """How little of the list must be read to find all matches: `len(ranks) / ranks[-1]`.

    Args:
        ranks: `[matches]` rising ranks from 1 on.

    Returns:
        float, 0 to 1; its mean over queries is mINP.

    Raises:
        ValueError: no ranks.

    Example:
        >>> inverse_negative_penalty([1, 4])
        0.5
    """
    if not len(ranks):
        raise ValueError("The inverse negative penalty needs a match; ranks is empty.")
    return len(ranks) / float(ranks[-1])


@dataclasses.dataclass(frozen=True, eq=False)
class _Task:
    """Checked queries and gallery."""

    queries: np.ndarray
    gallery: np.ndarray
    query_ids: np.ndarray
    gallery_ids: np.ndarray
    query_cameras: np.ndarray | None
    gallery_cameras: np.ndarray | None
    distances: np.ndarray | None

    def scores(self, chunk_size):
        """Iterates over `(row, scores [N])` of the queries, higher is nearer."""
        if self.distances is not None:
            return enumerate(-self.distances)
        gallery = exact_search.on_grid(self.gallery, name="gallery")
        queries = exact_search.on_grid(self.queries, name="queries")
        return iterate_scores(queries, gallery, chunk_size=chunk_size)

    def masks(self, row):
        """`(matches [N], left out [N])` of a query."""
        same = self.gallery_ids == self.query_ids[row]
        left_out = self.gallery_ids == JUNK
        if self.query_cameras is not None:
            left_out |= same & (self.gallery_cameras == self.query_cameras[row])
        return same & ~left_out, left_out


def _ranks(scores, matches, left_out):
    """Rising ranks of the matches among what is not left out."""
    candidates = scores[~left_out]
    wanted = np.flatnonzero(matches[~left_out])
    ordered = np.sort(candidates)
    above = len(ordered) - np.searchsorted(ordered, candidates[wanted], side="right")
    equal = len(ordered) - above - np.searchsorted(ordered, candidates[wanted], side="left")
    ranks = above + 1
    for place in np.flatnonzero(equal > 1):
        row = wanted[place]
        ranks[place] += np.count_nonzero(candidates[:row] == candidates[row])
    return np.sort(ranks)


def _prepare(queries, query_ids, gallery, gallery_ids, query_cameras, gallery_cameras, distances):
    queries, gallery = as_rows(queries, name="queries"), as_rows(gallery, name="gallery")
    check_dimensions(queries, gallery, names=("queries", "gallery"))
    if (query_cameras is None) != (gallery_cameras is None):
        raise ValueError("query_cameras and gallery_cameras must be given together, or neither.")
    columns = {"query_ids": (query_ids, queries), "gallery_ids": (gallery_ids, gallery)}
    if query_cameras is not None:
        columns["query_cameras"] = (query_cameras, queries)
        columns["gallery_cameras"] = (gallery_cameras, gallery)
    ids = {
        name: pairs.ids_of_rows(values, rows, name=name) for name, (values, rows) in columns.items()
    }
    if np.any(ids["query_ids"] == JUNK):
        row = int(np.argmax(ids["query_ids"] == JUNK))
        raise ValueError(f"Query {row} is junk (id {JUNK}): leave it out of the queries.")
    if distances is not None:
        distances = _check_distances(distances, shape=(len(queries), len(gallery)))
    cameras = {name: ids.get(name) for name in ("query_cameras", "gallery_cameras")}
    return _Task(
        queries,
        gallery,
        query_ids=ids["query_ids"],
        gallery_ids=ids["gallery_ids"],
        **cameras,
        distances=distances,
    )


def _check_distances(distances, *, shape):
    distances = np.asarray(distances)
    if distances.shape != shape:
        raise ValueError(
            f"distances must have shape [Q, N] = {list(shape)}; found {list(distances.shape)}."
        )
    if not np.all(np.isfinite(distances)):
        raise ValueError("distances must be finite; found NaN or inf.")
    return distances
