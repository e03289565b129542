"""Verification: are two images of one identity? Accuracy over folds, and TAR at FAR."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows
from circle_tf.utils import checks

__all__ = [
    "flip_test_embeddings",
    "k_fold_accuracy",
    "pair_similarities",
    "tar_at_far",
    "verification_report",
]


def pair_similarities(first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """Cosines of pairs of rows.

    Args:
        first: `[P, D]` embeddings of any real dtype and scale.
        second: `[P, D]` embeddings.

    Returns:
        `[P]` float64, exact on the grid of `circle_tf.evaluation.exact_search`.

    Raises:
        ValueError: shapes that differ, NaN or inf in a row.

    Example:
        >>> pair_similarities([[3.0, 0.0], [1.0, 0.0]], [[2.0, 0.0], [0.0, 1.0]]).round(3).tolist()
        [1.0, 0.0]
    """
    first, second = as_rows(first, name="first"), as_rows(second, name="second")
    if first.shape != second.shape:
        raise ValueError(
            "first and second must have the same shape [P, D]; "
            f"found {list(first.shape)} and {list(second.shape)}."
        )
    products = exact_search.on_grid(first, name="first") * exact_search.on_grid(
        second, name="second"
    )
    return products.sum(axis=1)


def k_fold_accuracy(similarities: ArrayLike, same: ArrayLike, *, folds: int = 10) -> np.ndarray:
    """Accuracy of each fold with the threshold that is best on the others.

    The LFW protocol: the folds are consecutive pairs. A pair is taken for one identity if its
    similarity is at or above the threshold. Of thresholds that are equally good on the other folds
    the middle one is taken.

    Args:
        similarities: `[P]` of pairs, higher for more alike.
        same: `[P]` bool, whether a pair is of one identity.
        folds: int of 2 or more that divides P.

    Returns:
        `[folds]` float64, 0 to 1; tables show mean and standard deviation.

    Raises:
        ValueError: shapes that do not fit, NaN, pairs of one kind only, folds that do not divide P.

    References:
        Huang et al., "Labeled Faces in the Wild", 2007 (restricted protocol, view 2).

    Example:
        >>> k_fold_accuracy([0.9, 0.1, 0.8, 0.3], [True, False, True, False], folds=2).tolist()
        [1.0, 1.0]
    """
    scores, same = _check_pairs(similarities, same)
    folds = checks.whole_number(folds, "folds", least=2)
    if len(scores) % folds:
        raise ValueError(
            f"folds must divide the number of pairs; found {folds} folds, {len(scores)} pairs."
        )
    fold = np.arange(len(scores)) // (len(scores) // folds)
    accuracies = []
    for number in range(folds):
        threshold = _best_threshold(scores[fold != number], same[fold != number])
        accepted = scores[fold == number] >= threshold
        accuracies.append(np.mean(accepted == same[fold == number]))
    return np.array(accuracies)


def tar_at_far(
    similarities: ArrayLike,
    same: ArrayLike,
    far: float,
    *,
    rule: Literal["at_most", "nearest"] = "at_most",
) -> float:
    """True accept rate where the false accept rate is as asked.

    Args:
        similarities: `[P]` of pairs, higher for more alike.
        same: `[P]` bool, whether a pair is of one identity.
        far: float 0 to 1, rate of false accepts.
        rule: `at_most` for the largest false accept rate that can be had and does not exceed
            `far`; `nearest` for the one nearest to it, as published scripts have it, of two
            equally near the lower.

    Returns:
        float, 0 to 1: the largest true accept rate there. With `far` below one by the number of
        impostor pairs `at_most` means no false accept at all, and `nearest` may.

    Raises:
        ValueError: shapes that do not fit, NaN, pairs of one kind only, far out of range, another
            rule.

    References:
        Klare et al., "Pushing the Frontiers of Unconstrained Face Detection and Recognition", 2015.

    Example:
        >>> scores, same = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
        >>> tar_at_far(scores, same, 0.1), tar_at_far(scores, same, 0.5)
        (0.5, 1.0)
    """
    checks.single(far, "far", instead="verification_report(..., fars=...)")
    scores, same = _check_pairs(similarities, same)
    if not 0 <= far <= 1:
        raise ValueError(f"far must be 0 to 1; found {far}.")
    if rule not in ("at_most", "nearest"):
        raise ValueError(f"rule must be 'at_most' or 'nearest'; found {rule!r}.")
    impostors = np.sort(scores[~same])
    # Rates that can be had: what is at or above a value; a tie is accepted or refused as one.
    values = np.unique(impostors)
    accepted = np.append(len(impostors) - np.searchsorted(impostors, values, side="left"), 0)
    rates = accepted / len(impostors)
    if rule == "at_most":
        chosen = np.argmax(rates <= far)  # Rates fall; the last one is 0.
    else:
        off = np.abs(rates - far)
        chosen = np.flatnonzero(off == off.min())[-1]
    refused = -np.inf if chosen == 0 else values[chosen - 1]  # The highest that is refused.
    return float(np.mean(scores[same] > refused))


def verification_report(
    similarities: ArrayLike,
    same: ArrayLike,
    *,
    folds: int = 10,
    fars: float | Iterable[float] = (1e-3,),
) -> dict[str, float]:
    """Accuracy over folds and TAR at FAR of one list of pairs.

    Args:
        similarities: `[P]` of pairs, higher for more alike.
        same: `[P]` bool, whether a pair is of one identity.
        folds: int of 2 or more that divides P.
        fars: floats 0 to 1, or one.

    Returns:
        dict of floats 0 to 1: `accuracy`, `accuracy_std` (over folds), `tar_at_far_{far}` for each
        (of the largest rate that does not exceed it); and the counts `genuine` and `impostors`.

    Raises:
        ValueError: as `k_fold_accuracy` and `tar_at_far`.

    Example:
        >>> report = verification_report([0.9, 0.1, 0.8, 0.3], [True, False] * 2, folds=2)
        >>> report["accuracy"], report["tar_at_far_0.001"]
        (1.0, 1.0)
    """
    accuracies = k_fold_accuracy(similarities, same, folds=folds)
    rates = checks.several(fars)
    return {
        "accuracy": float(np.mean(accuracies)),
        "accuracy_std": float(np.std(accuracies)),
        **{f"tar_at_far_{far:g}": tar_at_far(similarities, same, far) for far in rates},
        "genuine": int(np.sum(np.asarray(same, bool))),
        "impostors": int(np.sum(~np.asarray(same, bool))),
    }


def flip_test_embeddings(embed: Callable[[np.ndarray], ArrayLike], images: ArrayLike) -> np.ndarray:
    """Embeddings of images and of their mirror images, added and normalised.

    Args:
        embed: function of `[N, H, W, C]` images to `[N, D]` embeddings, such as `model.predict`.
        images: `[N, H, W, C]`.

    Returns:
        `[N, D]` float32 unit rows.

    Raises:
        ValueError: images of another shape.

    Example:
        >>> images = np.array([[[[3.0], [5.0]]]])  # one row of two pixels
        >>> flip_test_embeddings(lambda x: x.reshape(len(x), -1), images).tolist()
        [[0.707..., 0.707...]]
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images must have shape [N, H, W, C]; found {list(images.shape)}.")
    summed = np.asarray(embed(images), np.float64) + np.asarray(embed(images[:, :, ::-1]))
    return exact_search.on_grid(summed, name="embeddings").astype(np.float32)


def _check_pairs(similarities, same):
    scores, same = np.asarray(similarities, np.float64), np.asarray(same)
    if scores.ndim != 1 or same.shape != scores.shape:
        raise ValueError(
            "similarities and same must have shape [P]; "
            f"found {list(scores.shape)} and {list(same.shape)}."
        )
    if not np.isin(same, (0, 1)).all():
        raise ValueError("same must be bool: whether a pair is of one identity.")
    same = same.astype(bool)
    if same.all() or not same.any():
        kind = "genuine" if same.any() else "impostor"
        raise ValueError(f"Verification needs pairs of both kinds; found {kind} pairs only.")
    if np.isnan(scores).any():
        raise ValueError(f"similarities must not be NaN; pair {int(np.argmax(np.isnan(scores)))}.")
    return scores, same


def _best_threshold(scores, same):
    """Between the pair that should still be refused and the one above, where accuracy is best."""
    values, places = np.unique(scores, return_inverse=True)
    genuine = np.bincount(places, same, len(values))
    impostors = np.bincount(places, ~same, len(values))
    # Accepting from value i on; the last entry accepts none.
    right = np.append(0, np.cumsum(impostors)) + np.append(np.cumsum(genuine[::-1])[::-1], 0)
    best = np.flatnonzero(right == right.max())
    chosen = best[len(best) // 2]
    edges = np.concatenate([[-np.inf], (values[:-1] + values[1:]) / 2, [np.inf]])
    return edges[chosen]
