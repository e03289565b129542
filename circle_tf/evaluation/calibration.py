"""From similarities to decisions: thresholds at false-accept rates, with how sure they are."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import HighestScores, as_rows, classes_of, iterate_scores
from circle_tf.utils import checks

__all__ = ["Calibration", "Threshold", "calibrate"]

_LEAST_ERRORS = 30  # The "rule of 30": with fewer false accepts a rate is known to no half.
_LEAST_IDENTITIES = 10  # Resampling fewer tells nothing of others: of two the interval is a point.
_RESAMPLED = 2**18  # Scores at most that each draw goes through.
_SPARE = 4  # Resampled identities reach deeper into the highest scores than the sample itself.


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A similarity from which on to say yes, and what that does.

    Args:
        false_accept_rate: float, the rate asked for.
        threshold: float from -1: yes at or above it. Above 1 where nothing may pass.
        threshold_interval: `(low, high)` of the threshold over resampled identities.
        measured_rate: float, the false accept rate on the sample at the threshold.
        rate_interval: `(low, high)` of that rate over resampled identities.
        true_accept_rate: float 0 to 1, how much of what should be accepted is.
        true_accept_interval: `(low, high)` of it.
        expected_errors: float, false accepts that the rate means in this sample.
        reliable: whether there are enough of them, 30, and of identities, 10, to know the rate.

    Example:
        >>> found = Threshold(0.01, 0.4, (0.3, 0.5), 0.01, (0.0, 0.02), 0.9, (0.8, 1.0), 50.0, True)
        >>> 0.45 >= found.threshold  # Are these two of one class?
        True
    """

    false_accept_rate: float
    threshold: float
    threshold_interval: tuple[float, float]
    measured_rate: float
    rate_interval: tuple[float, float]
    true_accept_rate: float
    true_accept_interval: tuple[float, float]
    expected_errors: float
    reliable: bool


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Thresholds for both decisions, made by `calibrate`.

    Args:
        verification: list of Threshold: are these two images of one class?
        search: list of Threshold: is the nearest gallery row good enough to name its class, or is
            the image of none?
        confidence: float, of the intervals.
        counts: dict of int: `identities`, `examples`, `genuine` and `impostors` pairs.

    Example:
        >>> found = Threshold(0.01, 0.4, (0.3, 0.5), 0.01, (0.0, 0.02), 0.9, (0.8, 1.0), 50.0, True)
        >>> print(Calibration([found], [], confidence=0.95, counts={}).table())
        decision           rate  threshold         interval  accepted         interval
        verification       0.01     0.4000 0.3000 to 0.5000     0.900   0.800 to 1.000
    """

    verification: list[Threshold]
    search: list[Threshold]
    confidence: float
    counts: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Everything as dicts, lists and numbers, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Calibration:
        """What `as_dict` gave, read back from JSON too."""
        found = {}
        for decision in ("verification", "search"):
            ends = [
                {k: tuple(v) if isinstance(v, list) else v for k, v in one.items()}
                for one in values[decision]
            ]
            found[decision] = [Threshold(**one) for one in ends]
        return cls(**{**values, **found})

    def table(self) -> str:
        """The thresholds as text, a line each."""
        head = f"{'decision':<14}{'rate':>9}{'threshold':>11}{'interval':>17}{'accepted':>10}"
        lines = [f"{head}{'interval':>17}"]
        for decision, found in (("verification", self.verification), ("search", self.search)):
            for one in found:
                low, high = one.threshold_interval
                least, most = one.true_accept_interval
                lines.append(
                    f"{decision:<14}{one.false_accept_rate:>9.2g}{one.threshold:>11.4f}"
                    f"{f'{low:.4f} to {high:.4f}':>17}{one.true_accept_rate:>10.3f}"
                    f"{f'{least:.3f} to {most:.3f}':>17}"
                    + ("" if one.reliable else "  too few examples")
                )
        return "\n".join(lines)


def calibrate(
    embeddings: ArrayLike,
    labels: ArrayLike,
    *,
    false_accept_rates: float | Iterable[float] = (1e-2, 1e-3),
    resamples: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Thresholds at which a model says "the same" or "unknown" wrongly as seldom as asked.

    Verification takes all pairs of the sample. Search looks each example up among all others: once
    without those of its own class, when naming any class is a false accept, and once with them,
    when the nearest must be of its class and above the threshold. Intervals come from resampling
    whole identities, since pairs of one identity are not independent.

    The sample must be what the model will meet: classes that it was not trained on.

    Args:
        embeddings: `[N, D]` of any real dtype and scale.
        labels: `[N]` integer classes, at least two of them, one with two examples.
        false_accept_rates: floats above 0 and below 1, or one.
        resamples: int of 1 or more, draws of identities for the intervals.
        confidence: float above 0 and below 1, share of the draws within an interval.
        seed: int, of the draws.

    Returns:
        Calibration. The thresholds are the lowest at which the rate on the sample does not exceed
        the one asked for. Only the highest impostor scores are held.

    Raises:
        ValueError: shapes that do not fit, NaN or inf in a row, one class only, no class with two
            examples, a rate or confidence out of range.

    Warns:
        UserWarning: the sample is too small for a rate: fewer than 30 false accepts are expected,
            or there are fewer than 10 classes.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(16, 8))[np.arange(640) % 16]
        >>> rows = rows + 0.3 * np.random.default_rng(1).normal(size=rows.shape)
        >>> found = calibrate(rows, np.arange(640) % 16, false_accept_rates=0.05)
        >>> found.verification[0].true_accept_rate > 0.9, found.counts["impostors"]
        (True, 192000)

    References:
        Bolle et al., "Error analysis of pattern recognition systems - the subsets bootstrap", 2004
        (resampling identities); Doddington et al., "The NIST speaker recognition evaluation", 2000
        (the rule of 30).
    """
    rows = as_rows(embeddings, name="embeddings")
    asked = checks.several(false_accept_rates)
    rates = sorted(_check_rate(rate, "false_accept_rates") for rate in asked)
    _check_rate(confidence, "confidence")
    resamples = checks.whole_number(resamples, "resamples", least=1)
    names, identity, sizes = classes_of(labels, rows, use="calibrate")
    scores = _Scores.of(exact_search.on_grid(rows, name="embeddings"), identity, sizes, rates)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    tail = (1 - confidence) / 2
    found = Calibration(
        _thresholds(rates, scores.verification, draws, tail),
        _thresholds(rates, scores.search, draws, tail),
        confidence,
        {
            "identities": len(names),
            "examples": len(rows),
            "genuine": int((sizes * (sizes - 1) // 2).sum()),
            "impostors": int((len(rows) ** 2 - (sizes**2).sum()) // 2),
        },
    )
    _warn_of_small_samples(found)
    return found


@dataclasses.dataclass(frozen=True)
class _Decision:
    """Scores of one decision: what must be refused, highest first, and what must be accepted.

    Args:
        wrong: `[W]` falling, the highest scores of what must be refused.
        wrong_of: `[W]` or `[W, 2]`, identities of each: their draws multiply.
        right: `[G]` falling, scores of what must be accepted.
        right_of: `[G]` identities.
        sizes: `[I]` examples of each identity.
        of_pairs: whether what must be refused are pairs of identities, all of them.
        every: int, for how many of the sample's each score of `wrong` stands.
    """

    wrong: np.ndarray
    wrong_of: np.ndarray
    right: np.ndarray
    right_of: np.ndarray
    sizes: np.ndarray
    of_pairs: bool
    every: int = 1

    def thinned(self):
        """Of many scores each so many-th by rank, which is enough for an interval."""
        every = max(1, len(self.wrong) // _RESAMPLED)
        wrong, right = (
            slice(None, None, every),
            slice(None, None, 1 + len(self.right) // _RESAMPLED),
        )
        return dataclasses.replace(
            self,
            wrong=self.wrong[wrong],
            wrong_of=self.wrong_of[wrong],
            right=self.right[right],
            right_of=self.right_of[right],
            every=every,
        )

    def all_wrong(self, draw):
        """The weight of all that must be refused, of which `wrong` has the highest."""
        weights = draw * self.sizes
        if not self.of_pairs:
            return weights.sum()
        return (weights.sum() ** 2 - (weights**2).sum()) / 2

    def measured(self, draw, rates, thresholds=None):
        """In a draw of identities: `[3, R]` lowest thresholds, and false and true accept rates.

        The rates are those at the thresholds given; None for those found. NaN where the draw has
        nothing that must be refused, or accepted.
        """
        drawn = draw[self.wrong_of]
        total = self.all_wrong(draw)
        passing = np.append(0, np.cumsum(drawn.prod(axis=1) if self.of_pairs else drawn))
        passing = passing * self.every / total if total else np.full(len(passing), np.nan)
        lowest = np.array([_lowest(self.wrong, passing[1:], rate) for rate in rates])
        lowest = lowest if total else np.full(len(rates), np.nan)
        at = lowest if thresholds is None else thresholds
        right = np.append(0, np.cumsum(draw[self.right_of]))
        accepted = right[np.searchsorted(-self.right, -at, side="right")]
        return (
            lowest,
            passing[np.searchsorted(-self.wrong, -at, side="right")],
            (accepted / right[-1] if right[-1] else np.full(len(at), np.nan)),
        )


@dataclasses.dataclass(frozen=True)
class _Scores:
    verification: _Decision
    search: _Decision

    @classmethod
    def of(cls, rows, identity, sizes, rates):
        """Both decisions' scores, from one pass over all pairs."""
        count = len(rows)
        impostors = (count**2 - (sizes**2).sum()) // 2
        held = min(impostors, int(_SPARE * max(rates) * impostors) + _LEAST_ERRORS)
        highest, genuine = HighestScores(held), ([], [])
        strangers, known = np.empty(count), np.full(count, -np.inf)
        for row, scores in iterate_scores(rows, rows):
            same = identity == identity[row]
            strangers[row] = scores[~same].max()
            own = np.flatnonzero(same)
            own = own[own != row]
            if own.size and scores[own].max() > strangers[row]:  # Else another class is named.
                known[row] = scores[own].max()
            later = own[own > row]
            genuine[0].append(scores[later])
            genuine[1].append(np.full(len(later), identity[row]))
            others = np.flatnonzero(~same[row + 1 :]) + row + 1
            highest.add(scores[others], np.full(len(others), row), others)
        wrong, first, second = highest.sorted()
        pairs_of = np.stack([identity[first], identity[second]], axis=1)
        paired = sizes[identity] > 1
        return cls(
            _Decision(wrong, pairs_of, *_falling(*map(np.concatenate, genuine)), sizes, True),
            _Decision(
                *_falling(strangers, identity),
                *_falling(known[paired], identity[paired]),
                sizes,
                False,
            ),
        )


def _falling(scores, identity):
    order = np.argsort(-scores, kind="stable")
    return scores[order], identity[order]


def _thresholds(rates, decision, draws, tail):
    """The Threshold at each rate, and its intervals over the draws of identities."""
    sample = np.ones(len(decision.sizes), int)
    found = decision.measured(sample, rates)
    thin = decision.thinned()
    drawn = np.array([thin.measured(draw, rates, found[0]) for draw in draws])
    low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0).tolist()
    total = decision.all_wrong(sample)
    thresholds = []
    for number, rate in enumerate(rates):
        ends = [
            (float(values[number]), (low[kind][number], high[kind][number]))
            for kind, values in enumerate(found)
        ]
        expected = float(rate * total)
        reliable = expected >= _LEAST_ERRORS and len(sample) >= _LEAST_IDENTITIES
        thresholds.append(Threshold(rate, *ends[0], *ends[1], *ends[2], expected, reliable))
    return thresholds


def _lowest(falling, passing, rate):
    """The lowest threshold above all scores that must be refused to keep to the rate."""
    allowed = int(np.searchsorted(passing, rate * (1 + 1e-12), side="right"))
    if allowed == len(falling):
        return falling[-1]
    return np.nextafter(falling[allowed], np.inf)  # A tie is accepted or refused as one.


def _check_rate(value, name):
    if not 0 < value < 1:
        raise ValueError(f"{name} must be above 0 and below 1; found {value}.")
    return float(value)


def _warn_of_small_samples(found):
    decisions = {"verification": found.verification, "search": found.search}
    small = [
        f"{decision} at {one.false_accept_rate:g} ({one.expected_errors:.3g} false accepts)"
        for decision, thresholds in decisions.items()
        for one in thresholds
        if not one.reliable
    ]
    if small:
        warnings.warn(
            f"The sample is too small for {', '.join(small)}: {_LEAST_ERRORS} are needed to know a "
            f"rate, and {_LEAST_IDENTITIES} classes; found {found.counts['identities']} classes. "
            "Give more examples, of more classes, or ask for a higher rate.",
            stacklevel=3,
        )
