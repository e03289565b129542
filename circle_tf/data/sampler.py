"""Which examples make a batch: P classes x K examples, a pure function of (seed, step).

Pair-wise losses need several examples of each class in a batch. Which ones is computed from the
number of the step, without replaying the steps before: training resumes where it stopped, and
any batch can be looked at again.
"""

from __future__ import annotations

import operator
import warnings

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.utils import checks

__all__ = ["PKSampler", "checked_labels", "raw_bits"]

# What a stream of random bits is for: streams of different purposes are independent.
_CLASSES, _EXAMPLES, _NEAREST = 0, 1, 2


class PKSampler:
    """Chooses the rows of each batch: P distinct classes, K examples of each.

    Steps come in rounds of `classes // P`; a round takes its classes from one permutation, so
    that every class comes once per round (but for the `classes % P` last ones, others in each
    round). Of a class of n examples, n // K successive rounds take K examples each from one
    permutation, so that no example comes twice before most have come once. A class of fewer than
    K examples repeats them, each as often as the others within one; a warning says so once,
    when the sampler is made.

    With `nearest_classes` the classes of a batch look alike, which makes its negatives hard: it is
    made of groups, a leader from the permutation and some of the classes nearest to it, drawn anew
    in each step. No class comes twice in a batch; where that leaves a group short, one more
    follows. Each class leads once in a round of `classes // ceil(P / group_size)` steps, and those
    that many others are near to come more often.

    Args:
        labels: class of each example `[N]`, integers of any values.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 1. Losses on pairs want 2 or more: an example by itself has
            no positive. With class-level labels alone 1 brings the most classes.
        seed: whole number from 0 to 2^63 - 1.
        nearest_classes: `[C, n]` integers, for each of the C classes n others that look like it, as
            `circle_tf.nearest_classes` finds them; classes are told by their places among the
            sorted distinct labels. None: any classes make a batch.
        group_size: with `nearest_classes`, the classes of a group: 2 to P and n + 1.

    Attributes:
        batch_size: P * K.
        steps_per_epoch: steps that take as many examples as there are: N // (P * K), at least 1.

    Raises:
        ValueError: labels that are empty or no integers `[N]`, fewer than P classes, P less than 2,
            K less than 1, a seed out of range; nearest classes of another shape, that are none, or
            a group size that they or P do not allow.

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017,
        section 2: P x K batches. Suh et al., "Stochastic Class-based Hard Example Mining for Deep
        Metric Learning", CVPR 2019, and Smirnov et al., "Doppelganger Mining for Face
        Representation Learning", ICCV workshops 2017: batches of classes that look alike.

    Example:
        >>> labels = np.array([5, 5, 5, 9, 9, 9])
        >>> sampler = PKSampler(labels, classes_per_batch=2, examples_per_class=2)
        >>> rows = sampler(1000)
        >>> rows.shape, sorted(labels[rows].tolist())
        ((4,), [5, 5, 9, 9])
        >>> bool((rows == sampler(1000)).all())
        True
        >>> labels, twins = np.repeat(np.arange(6), 2), [[1], [0], [3], [2], [5], [4]]
        >>> size = {"classes_per_batch": 2, "examples_per_class": 2}
        >>> sampler = PKSampler(labels, **size, nearest_classes=twins)
        >>> sorted({tuple(sorted(set(labels[sampler(step)].tolist()))) for step in range(6)})
        [(0, 1), (2, 3), (4, 5)]
    """

    def __init__(
        self,
        labels: ArrayLike,
        *,
        classes_per_batch: int,
        examples_per_class: int,
        seed: int = 0,
        nearest_classes: ArrayLike | None = None,
        group_size: int = 2,
    ) -> None:
        labels = checked_labels(labels)
        self._classes, counts = np.unique(labels, return_counts=True)
        self._counts = counts.astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._rows = np.argsort(labels, kind="stable")
        if (per_batch := operator.index(classes_per_batch)) < 2:
            raise ValueError(
                "Expected classes_per_batch of at least 2, as there are no negatives else; found "
                f"{per_batch}."
            )
        if (per_class := operator.index(examples_per_class)) < 1:
            raise ValueError(f"Expected examples_per_class of at least 1; found {per_class}.")
        self._per_batch, self._per_class = per_batch, per_class
        self._seed = operator.index(seed)
        if not 0 <= self._seed < 2**63:
            raise ValueError(f"Expected a seed from 0 to 2^63 - 1, found {seed}.")
        if len(self._classes) < self._per_batch:
            raise ValueError(
                f"Expected at least classes_per_batch={self._per_batch} classes, found "
                f"{len(self._classes)}. Lower classes_per_batch, or add classes."
            )
        self._nearest, self._leaders = None, self._per_batch
        if nearest_classes is not None:
            self._nearest = _checked_nearest(nearest_classes, count=len(self._classes))
            self._group_size = self._checked_group_size(group_size)
            self._leaders = -(-self._per_batch // self._group_size)
        self._round_order = (-1, None)
        self._warn_of_small_classes()

    @property
    def batch_size(self) -> int:
        """P * K."""
        return self._per_batch * self._per_class

    @property
    def steps_per_epoch(self) -> int:
        """Steps that take as many examples as there are, at least 1."""
        return max(1, len(self._rows) // self.batch_size)

    def __call__(self, step: int) -> np.ndarray:
        """Rows of one batch.

        Args:
            step: number of the step, from 0.

        Returns:
            Indices `[P * K]` int64 into the labels; the K of a class are neighbours.

        Raises:
            ValueError: the step is negative.
        """
        step = operator.index(step)
        if step < 0:
            raise ValueError(f"Expected a step from 0 on, found {step}.")
        round_, place = divmod(step, len(self._classes) // self._leaders)
        first = place * self._leaders
        # With groups the last batches of a round may look at its first classes again.
        coming = np.arange(first, first + self._per_batch)
        classes = self._class_order(round_).take(coming, mode="wrap").tolist()
        if self._nearest is None:
            return np.concatenate([self._examples(class_, round_) for class_ in classes])
        # A class may come in several steps of a round, each time with other examples.
        grouped = self._groups(classes, step)
        return np.concatenate([self._examples(class_, step) for class_ in grouped])

    def _groups(self, leaders, step):
        """P classes: each leader with classes near to it, until there are as many."""
        chosen = {}  # An ordered set.
        for leader in leaders:
            room = self._per_batch - len(chosen)
            if not room:
                break
            if leader not in chosen:
                near = self._nearest[leader]
                drawn = near[_permutation(len(near), self._seed, _NEAREST, step, leader)].tolist()
                group = [leader, *(class_ for class_ in drawn if class_ not in chosen)]
                chosen |= dict.fromkeys(group[: min(room, self._group_size)])
        return chosen

    def _class_order(self, round_):
        # Kept for the next step, as it takes time in proportion to ALL classes. One assignment,
        # so that threads at different rounds do not mix.
        kept_round, order = self._round_order
        if kept_round != round_:
            order = _permutation(len(self._classes), self._seed, _CLASSES, round_)
            self._round_order = (round_, order)
        return order

    def _examples(self, class_, turn):
        count, size = int(self._counts[class_]), self._per_class
        cycle, group = divmod(turn, max(1, count // size))
        order = _permutation(count, self._seed, _EXAMPLES, class_, cycle)
        chosen = order[(group * size + np.arange(size)) % count]
        return self._rows[self._starts[class_] + chosen]

    def _checked_group_size(self, size):
        most = min(self._per_batch, self._nearest.shape[1] + 1)
        if not 2 <= operator.index(size) <= most:
            raise ValueError(
                f"Expected a group_size from 2 to {most}, as there are classes_per_batch="
                f"{self._per_batch} and {self._nearest.shape[1]} nearest_classes of each class; "
                f"found {size}."
            )
        return operator.index(size)

    def _warn_of_small_classes(self):
        small = self._classes[self._counts < self._per_class]
        if len(small):
            shown = ", ".join(map(str, small[:10])) + (", ..." if len(small) > 10 else "")
            warnings.warn(
                f"{len(small)} of {len(self._classes)} classes have fewer than "
                f"examples_per_class={self._per_class} examples, which are repeated within "
                f"their batches: {shown}.",
                stacklevel=3,
            )


def checked_labels(labels: ArrayLike) -> np.ndarray:
    """Labels as ids.

    Args:
        labels: class of each example `[N]` or `[N, 1]`, integers of any values.

    Returns:
        `[N]` int64.

    Raises:
        ValueError: labels that are empty, of another shape, or no integers.

    Example:
        >>> checked_labels([[3], [5]]).tolist()
        [3, 5]
    """
    labels = checks.without_objects(np.asarray(labels))
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"Expected labels [N] of at least one example, found {labels.shape}.")
    if labels.dtype.kind not in "iu":
        raise ValueError(
            f"Expected integer labels, found {labels.dtype}. For names, take the second result "
            "of np.unique(names, return_inverse=True)."
        )
    return labels.astype(np.int64)


def _checked_nearest(nearest, *, count):
    nearest = np.asarray(nearest)
    if (
        nearest.ndim != 2
        or len(nearest) != count
        or not nearest.size
        or nearest.dtype.kind not in "iu"
    ):
        raise ValueError(
            f"Expected integers nearest_classes [{count}, n], n of 1 or more for each class; "
            f"found {nearest.dtype} {list(nearest.shape)}. circle_tf.nearest_classes makes them."
        )
    # In a row that is sorted with its own class, what is equal stands side by side.
    rows = np.sort(np.concatenate([nearest, np.arange(count)[:, None]], axis=1), axis=1)
    wrong = (rows[:, 0] < 0) | (rows[:, -1] >= count) | (np.diff(rows, axis=1) == 0).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"Expected in each row of nearest_classes other classes than its own, each once, by "
            f"their places 0 to {count - 1} among the sorted labels; found {nearest[row].tolist()} "
            f"in row {row}."
        )
    return nearest.astype(np.int64)


def raw_bits(count: int, *, seed: int, place: tuple[int, ...]) -> np.ndarray:
    """Random bits that are a pure function of the arguments, the same under every NumPy.

    Args:
        count: how many words of 64 bits.
        seed: whole number from 0 to 2^64 - 1.
        place: up to three whole numbers that tell this stream from the others of the seed.

    Returns:
        Words `[count]` uint64.

    Example:
        >>> raw_bits(2, seed=0, place=(1,)).tolist() == raw_bits(2, seed=0, place=(1,)).tolist()
        True
    """
    # The lowest word of the counter counts within the stream. The raw bits of a NumPy bit
    # generator are stable over versions; what a Generator makes of them is not.
    first, *others = (*place, 0, 0, 0)[:4]
    bits = np.random.Philox(key=[seed, first], counter=[0, *others])
    return bits.random_raw(count)


def _permutation(count, seed, *place):
    return raw_bits(count, seed=seed, place=place).argsort(kind="stable")
