"""What in a labelled data set looks wrong: labels that neighbours contradict, confused classes."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows, classes_of, iterate_scores
from circle_tf.utils import checks

__all__ = ["Confusion", "LabelInspection", "Suspect", "inspect_labels"]

_CANDIDATES = 10  # Nearest examples of other classes, whose classes may be the right one.


@dataclasses.dataclass(frozen=True)
class Suspect:
    """An example whose label is probably wrong, or that belongs to no class.

    Args:
        row: int, of the embeddings.
        label: int, its class as given.
        kind: `label`: another class is nearer than its own; `lonely`: it is far from every class.
        own_similarity: float, mean cosine to the nearest examples of its class; NaN where it is
            the only one.
        other_label: int, the nearest of the other classes.
        other_similarity: float, mean cosine to the nearest examples of that class.
        nearest_row: int, the nearest example of that class.
        score: float above 0, how suspect it is; of one kind comparable.

    Example:
        >>> found = Suspect(7, 0, "label", 0.2, 3, 0.9, 12, 0.7)
        >>> f"row {found.row}: labelled {found.label}, looks like {found.other_label}"
        'row 7: labelled 0, looks like 3'
    """

    row: int
    label: int
    kind: str
    own_similarity: float
    other_label: int
    other_similarity: float
    nearest_row: int
    score: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Two classes whose examples are each other's nearest neighbours.

    Args:
        labels: `(first, second)`, ints, the lower first.
        count: int, examples of either whose nearest neighbour is of the other.
        share: float 0 to 1, of all examples of the two.
        row: int, of these examples the one that is nearest to the other class.
        nearest_row: int, its nearest neighbour.

    Example:
        >>> Confusion((3, 8), 25, 0.125, 4, 9).share
        0.125
    """

    labels: tuple[int, int]
    count: int
    share: float
    row: int
    nearest_row: int


@dataclasses.dataclass(frozen=True)
class LabelInspection:
    """What `inspect_labels` found.

    Args:
        suspects: list of Suspect, those of kind `label` first, the most suspect of each first.
        confusions: list of Confusion, by share, the largest first.

    Example:
        >>> LabelInspection([], []).suspects
        []
    """

    suspects: list[Suspect]
    confusions: list[Confusion]


def inspect_labels(
    embeddings: ArrayLike, labels: ArrayLike, *, neighbours: int = 3
) -> LabelInspection:
    """Finds examples whose neighbours contradict their labels, and classes that are confused.

    An example's similarity to a class is the mean cosine to the examples of it that are nearest,
    `neighbours` many or as many as its own class has besides; what another class lacks of them
    counts 0. Its label is suspect where another class is nearer than its own, by that difference.
    An example is lonely where its own class is farther than Tukey's fence (a quartile less 1.5
    interquartile ranges, over all examples) and no other class is above the fence. The only example
    of a class is judged as if its own similarity were the median.

    Embeddings of examples that the model was trained on hide errors the more, the longer it was: it
    has learnt them. Take a model of other data, or one that has seen the examples seldom.

    Args:
        embeddings: `[N, D]` of any real dtype and scale.
        labels: `[N]` integer classes, at least two of them, one with two examples.
        neighbours: int of 1 or more; more withstand more errors of the same kind.

    Returns:
        LabelInspection. Takes `N^2 D` multiplications, and about 256 MB beside
        the embeddings in float64.

    Raises:
        ValueError: shapes that do not fit, NaN or inf in a row, one class only, no class with two
            examples.

    Example:
        >>> rows = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [1, 0.15]])
        >>> (found,) = inspect_labels(rows, [0, 0, 0, 1, 1, 1]).suspects
        >>> found.row, found.label, found.other_label, found.kind
        (5, 1, 0, 'label')

    References:
        Wilson, "Asymptotic properties of nearest neighbor rules using edited data", 1972 (a label
        that neighbours contradict); Tukey, "Exploratory data analysis", 1977 (the fence).
    """
    rows = as_rows(embeddings, name="embeddings")
    neighbours = checks.whole_number(neighbours, "neighbours", least=1)
    names, identity, sizes = classes_of(labels, rows, use="inspect_labels")
    unit = exact_search.on_grid(rows, name="embeddings")
    found = _Similarities.of(unit, identity, sizes, neighbours)
    return LabelInspection(_suspects(found, names, identity), _confusions(found, names, identity))


@dataclasses.dataclass(frozen=True)
class _Similarities:
    """Of each example `[N]`: similarities to its own class, to the nearest other, and its best.

    Args:
        own: mean cosine to its own class; NaN for the only one of a class.
        other: mean cosine to the nearest other class.
        other_class: that class, a position in the sorted classes.
        nearest: row of the nearest example of that class.
        first: row of the nearest example of all.
        first_score: its cosine.
    """

    own: np.ndarray
    other: np.ndarray
    other_class: np.ndarray
    nearest: np.ndarray
    first: np.ndarray
    first_score: np.ndarray

    @classmethod
    def of(cls, unit, identity, sizes, neighbours):
        """From one pass over all pairs."""
        count = len(unit)
        order = np.argsort(identity, kind="stable")
        members = np.split(order, np.cumsum(sizes)[:-1])
        kinds = dict.fromkeys(("own", "other", "first_score"), float)
        kinds |= dict.fromkeys(("other_class", "nearest", "first"), int)
        found = cls(**{name: np.zeros(count, kind) for name, kind in kinds.items()})
        for row, scores in iterate_scores(unit, unit):
            own = members[identity[row]]
            own = own[own != row]
            taken = min(neighbours, len(own) or neighbours)
            found.own[row] = _mean_of_highest(scores[own], taken) if own.size else np.nan
            best = scores[own].max(initial=-np.inf)
            first = own[scores[own].argmax()] if own.size else -1
            scores[own] = scores[row] = -np.inf  # Other classes from here on.
            near = _highest(scores, min(_CANDIDATES, count - len(own) - 1))
            classes = np.unique(identity[near])
            means = [_mean_of_highest(scores[members[one]], taken) for one in classes]
            found.other[row] = max(means)
            found.other_class[row] = chosen = classes[int(np.argmax(means))]
            found.nearest[row] = members[chosen][scores[members[chosen]].argmax()]
            is_other = scores[near[0]] > best
            found.first[row] = near[0] if is_other else first
            found.first_score[row] = max(best, scores[near[0]])
        return found


def _highest(scores, count):
    """Rows of the highest scores, the highest first."""
    rows = np.argpartition(scores, len(scores) - count)[len(scores) - count :]
    return rows[np.argsort(-scores[rows], kind="stable")]


def _mean_of_highest(scores, count):
    """The mean of so many of the highest; of fewer there are, the rest count 0."""
    if len(scores) > count:
        scores = np.partition(scores, len(scores) - count)[len(scores) - count :]
    return float(scores.sum() / count)


def _suspects(found, names, identity):
    known = found.own[~np.isnan(found.own)]
    quartile, median, upper = np.quantile(known, [0.25, 0.5, 0.75])
    fence = quartile - 1.5 * (upper - quartile)
    own = np.where(np.isnan(found.own), median, found.own)
    gap = found.other - own
    is_label = (gap > 0) & (found.other >= fence)
    is_lonely = ~is_label & (own < fence)
    suspects = []
    for kind, chosen, score in (("label", is_label, gap), ("lonely", is_lonely, fence - own)):
        rows = np.flatnonzero(chosen)
        for row in rows[np.argsort(-score[rows], kind="stable")].tolist():
            suspects.append(
                Suspect(
                    row=row,
                    label=int(names[identity[row]]),
                    kind=kind,
                    own_similarity=float(found.own[row]),
                    other_label=int(names[found.other_class[row]]),
                    other_similarity=float(found.other[row]),
                    nearest_row=int(found.nearest[row]),
                    score=float(score[row]),
                )
            )
    return suspects


def _confusions(found, names, identity):
    rows_of = collections.defaultdict(list)
    for row in np.flatnonzero(identity[found.first] != identity).tolist():
        rows_of[tuple(sorted((identity[row], identity[found.first[row]])))].append(row)
    sizes = np.bincount(identity)
    confusions = []
    for (first, second), rows in rows_of.items():
        row = max(rows, key=lambda row: found.first_score[row])
        confusions.append(
            Confusion(
                labels=(int(names[first]), int(names[second])),
                count=len(rows),
                share=len(rows) / int(sizes[first] + sizes[second]),
                row=row,
                nearest_row=int(found.first[row]),
            )
        )
    return sorted(confusions, key=lambda one: (-one.share, -one.count, one.labels))
