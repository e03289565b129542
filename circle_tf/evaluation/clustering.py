"""Clustering: how well do clusters of embeddings agree with the classes? NMI."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows, check_labels
from circle_tf.utils import checks

__all__ = ["normalized_mutual_information"]


def normalized_mutual_information(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    clusters: int | None = None,
    seed: int = 0,
    restarts: int = 1,
) -> float:
    """NMI of classes and of k-means clusters of unit embeddings.

    `I(classes; clusters) / ((H(classes) + H(clusters)) / 2)`. It depends on the clustering
    as well as on the embeddings: report MAP@R beside it (Musgrave et al., ECCV 2020).

    Args:
        embeddings: `[N, D]` of any real dtype and scale.
        labels: `[N]` or `[N, 1]` integer ids.
        clusters: int, how many; None for as many as there are classes.
        seed: int, of k-means.
        restarts: int, runs of k-means of which the best is taken.

    Returns:
        float, 0 to 1.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row, clusters out of range.
        ImportError: scikit-learn is not installed.

    References:
        Manning et al., "Introduction to Information Retrieval", 2008, section 16.3.

    Example:
        >>> rows = np.repeat(np.eye(3), 4, axis=0)
        >>> round(normalized_mutual_information(rows, np.arange(12) // 4), 6)
        1.0
    """
    rows = as_rows(embeddings, name="embeddings")
    ids = check_labels(rows, labels)[0]
    count = len(np.unique(ids)) if clusters is None else clusters
    checks.single(count, "clusters", instead="one call for each")
    if not 1 <= count <= len(rows):
        raise ValueError(
            f"clusters must be from 1 to {len(rows)}, the number of rows; found {count}."
        )
    cluster, metrics = _import_sklearn()
    unit = exact_search.on_grid(rows, name="embeddings").astype(np.float32)
    means = cluster.KMeans(count, n_init=restarts, random_state=seed)
    return float(metrics.normalized_mutual_info_score(ids, means.fit_predict(unit)))


def _import_sklearn():
    try:
        from sklearn import cluster, metrics
    except ImportError as error:
        raise ImportError("NMI needs scikit-learn: pip install 'circle-tf[train]'.") from error
    return cluster, metrics
