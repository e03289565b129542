"""Similarities of positive and negative pairs, drawn from embeddings to be looked at."""

import numpy as np

from circle_tf.ops import numerics, pairs

__all__ = ["hardest_pairs", "random_pairs"]

_CHUNK = 256


def random_pairs(embeddings, labels, *, count=2000, seed=0):
    """A random positive and a random negative of random anchors.

    Args:
        embeddings: `[N, D]` of any scale.
        labels: `[N]` or `[N, 1]` integer ids.
        count: int, anchors drawn, with replacement.
        seed: int.

    Returns:
        `(s_n, s_p)`, both `[count]` float32, -1 to 1: entry i of both is of one anchor.

    Raises:
        ValueError: no class has two rows, or there is one class only.

    Example:
        >>> s_n, s_p = random_pairs([[1, 0], [2, 0], [0, 1], [0, 3]], [5, 5, 6, 6], count=3)
        >>> s_n.tolist(), s_p.tolist()
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    """
    unit, ids, valid = _prepare(embeddings, labels)
    rng = np.random.default_rng(seed)
    anchors = rng.choice(valid, count)
    # With rows sorted by class, a class is a block: skipping a block is adding its length.
    order = np.argsort(ids, kind="stable")
    place = np.argsort(order)[anchors]
    first = np.searchsorted(ids, ids[anchors], side="left", sorter=order)
    size = np.searchsorted(ids, ids[anchors], side="right", sorter=order) - first
    positives = first + rng.integers(0, size - 1)
    positives += positives >= place
    negatives = rng.integers(0, len(ids) - size)
    negatives += np.where(negatives >= first, size, 0)
    return tuple(
        np.sum(unit[anchors] * unit[order[others]], axis=1) for others in (negatives, positives)
    )


def hardest_pairs(embeddings, labels, *, count=2000, seed=0):
    """The most similar negative and the least similar positive of random anchors.

    Args:
        embeddings: `[N, D]` of any scale.
        labels: `[N]` or `[N, 1]` integer ids.
        count: int, anchors at most, without replacement; their pairs are sought among all rows.
        seed: int.

    Returns:
        `(s_n, s_p)`, both `[anchors]` float32, -1 to 1: entry i of both is of one anchor.

    Raises:
        ValueError: no class has two rows, or there is one class only.

    Example:
        >>> s_n, s_p = hardest_pairs([[1, 0], [2, 0], [0, 1], [0, 3]], [5, 5, 6, 6])
        >>> s_n.tolist(), s_p.tolist()
        ([0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0])
    """
    unit, ids, valid = _prepare(embeddings, labels)
    anchors = np.random.default_rng(seed).permutation(valid)[:count]
    hardest = [np.empty([2, 0], np.float32)]
    for start in range(0, len(anchors), _CHUNK):
        rows = anchors[start : start + _CHUNK]
        cosines = unit[rows] @ unit.T
        same = ids[rows, None] == ids
        s_n = np.where(same, -np.inf, cosines).max(axis=1)
        same[np.arange(len(rows)), rows] = False
        hardest.append([s_n, np.where(same, cosines, np.inf).min(axis=1)])
    s_n, s_p = np.concatenate(hardest, axis=1)
    return s_n, s_p


def _prepare(embeddings, labels):
    """Unit rows, ids, and the rows that have both a positive and a negative."""
    unit = numerics.safe_normalize(np.asarray(embeddings, np.float32)).numpy()
    ids = pairs.to_ids(labels).numpy()
    if unit.ndim != 2 or len(ids) != len(unit):
        raise ValueError(
            f"Embeddings must have shape [N, D] with one label each; found shape "
            f"{list(unit.shape)} and {len(ids)} labels."
        )
    _, inverse, counts = np.unique(ids, return_inverse=True, return_counts=True)
    valid = np.flatnonzero((counts[inverse] > 1) & (counts[inverse] < len(ids)))
    if not valid.size:
        raise ValueError(
            f"Pairs need two classes, one of them with two rows; found {len(counts)} classes "
            f"in {len(ids)} rows."
        )
    return unit, ids, valid
