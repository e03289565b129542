"""Batches of P classes x K examples, each a pure function of (seed, step).

Pair-wise losses need several examples of each class in a batch. Which ones is computed from the
number of the step, without replaying the steps before: training resumes where it stopped, and
any batch can be looked at again.
"""

import operator
import warnings

import numpy as np
import tensorflow as tf

from circle_tf.data.examples import as_examples, decoder, gather

__all__ = ["PKSampler", "part_of_batch", "pk_dataset", "raw_bits"]

# What a stream of random bits is for: streams of different purposes are independent.
_CLASSES, _EXAMPLES = 0, 1


class PKSampler:
    """Chooses the rows of each batch: P distinct classes, K examples of each.

    Steps come in rounds of `classes // P`; a round takes its classes from one permutation, so
    that every class comes once per round (but for the `classes % P` last ones, others in each
    round). Of a class of n examples, n // K successive rounds take K examples each from one
    permutation, so that no example comes twice before most have come once. A class of fewer than
    K examples repeats them, each as often as the others within one; this is told once, when the
    sampler is made.

    Args:
        labels: class of each example `[N]`, integers of any values.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 2.
        seed: whole number from 0 to 2^63 - 1.

    Attributes:
        batch_size: P * K.
        steps_per_epoch: steps that take as many examples as there are: N // (P * K), at least 1.

    Raises:
        ValueError: labels that are empty or no integers `[N]`, fewer than P classes, P or K
            less than 2, a seed out of range.

    References:
        Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017,
        section 2: P x K batches.

    Example:
        >>> labels = np.array([5, 5, 5, 9, 9, 9])
        >>> sampler = PKSampler(labels, classes_per_batch=2, examples_per_class=2)
        >>> rows = sampler(1000)
        >>> rows.shape, sorted(labels[rows].tolist())
        ((4,), [5, 5, 9, 9])
        >>> bool((rows == sampler(1000)).all())
        True
    """

    def __init__(self, labels, *, classes_per_batch, examples_per_class, seed=0):
        labels = _checked_labels(labels)
        self._classes, counts = np.unique(labels, return_counts=True)
        self._counts = counts.astype(np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._rows = np.argsort(labels, kind="stable")
        self._per_batch = _at_least_two(classes_per_batch, "classes_per_batch", "negatives")
        self._per_class = _at_least_two(examples_per_class, "examples_per_class", "positives")
        self._seed = operator.index(seed)
        if not 0 <= self._seed < 2**63:
            raise ValueError(f"Expected a seed from 0 to 2^63 - 1, found {seed}.")
        if len(self._classes) < self._per_batch:
            raise ValueError(
                f"Expected at least classes_per_batch={self._per_batch} classes, found "
                f"{len(self._classes)}. Lower classes_per_batch, or add classes."
            )
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

    def __call__(self, step) -> np.ndarray:
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
        round_, place = divmod(step, len(self._classes) // self._per_batch)
        first = place * self._per_batch
        classes = self._class_order(round_)[first : first + self._per_batch]
        return np.concatenate([self._examples(class_, round_) for class_ in classes])

    def _class_order(self, round_):
        # Kept for the next step, as it takes time in proportion to ALL classes. One assignment,
        # so that threads at different rounds do not mix.
        kept_round, order = self._round_order
        if kept_round != round_:
            order = _permutation(len(self._classes), self._seed, _CLASSES, round_)
            self._round_order = (round_, order)
        return order

    def _examples(self, class_, round_):
        count, size = int(self._counts[class_]), self._per_class
        cycle, group = divmod(round_, max(1, count // size))
        order = _permutation(count, self._seed, _EXAMPLES, int(class_), cycle)
        chosen = order[(group * size + np.arange(size)) % count]
        return self._rows[self._starts[class_] + chosen]

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


def pk_dataset(
    examples,
    labels,
    *,
    classes_per_batch,
    examples_per_class,
    seed=0,
    start_step=0,
    num_steps=None,
    decode=None,
    augment=None,
    part=(0, 1),
) -> tf.data.Dataset:
    """Batches for `model.fit`: the images of P classes x K examples, and their ids.

    Args:
        examples: images `[N, ...]` (anything NumPy takes), N file paths, or a
            `circle_tf.records.RecordFiles` of N records.
        labels: class of each example `[N]`, integers of any values.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 2.
        seed: whole number from 0 to 2^63 - 1.
        start_step: the first step to yield. Everything is as if the steps before had been
            yielded too: pass the step of the checkpoint to resume.
        num_steps: how many batches to yield; None for no end (`fit` then needs
            `steps_per_epoch`).
        decode: for paths and records, `fn(bytes of one file or record) -> image` in TensorFlow
            operations, run on many at a time. For images in memory there is nothing to decode.
        augment: `fn(images [P * K, ...], seed [2] int32) -> images`, in TensorFlow operations.
            The seed is another one in every step, and the same whenever that step is taken:
            use it with `tf.image.stateless_*` or `tf.random.stateless_*`.
        part: `(index, number)`: yield only this part of the rows of each batch, those that
            `part_of_batch` gives; only they are read. The parts of a step, one after the other,
            are its whole batch to the bit, also after `augment`, which gets the whole batch with
            zeros in place of the rows that are not read.

    Returns:
        A dataset of (images `[P * K, ...]`, ids `[P * K]` int64), in the order of the steps; of
        `n` rows each with `part`.

    Raises:
        ValueError: as `PKSampler`; lengths of examples and labels differ; a negative step;
            paths or records without `decode`, or images with it; a part that cannot be.

    Example:
        >>> images = np.arange(6, dtype=np.float32)
        >>> dataset = pk_dataset(
        ...     images, [0, 0, 0, 1, 1, 1], classes_per_batch=2, examples_per_class=2, num_steps=3)
        >>> [tuple(batch.shape) for batch, ids in dataset]
        [(4,), (4,), (4,)]
    """
    examples, labels = as_examples(examples, decode=decode), _checked_labels(labels)
    if len(examples) != len(labels):
        raise ValueError(
            f"Expected one label per example, found {len(labels)} labels and "
            f"{len(examples)} examples."
        )
    sampler = PKSampler(
        labels,
        classes_per_batch=classes_per_batch,
        examples_per_class=examples_per_class,
        seed=seed,
    )
    steps = _steps(start_step, num_steps)
    own = part_of_batch(sampler.batch_size, part=part)

    def draw(step):
        rows = sampler(step)[own]
        return rows, labels[rows]

    def choose(step):
        rows, ids = tf.numpy_function(draw, [step], (tf.int64, tf.int64))
        size = [own.stop - own.start]
        return gather(examples, tf.ensure_shape(rows, size)), tf.ensure_shape(ids, size)

    batches = steps.map(choose, num_parallel_calls=2, deterministic=True)
    if decode is not None:
        decode = decoder(examples, decode=decode)
        batches = batches.unbatch().map(
            lambda content, id_: (decode(content), id_), num_parallel_calls=tf.data.AUTOTUNE
        )
        batches = batches.batch(own.stop - own.start, drop_remainder=True)
    if augment is not None:
        whole = {"batch_size": sampler.batch_size, "seed": seed}
        batches = _augmented(steps, batches, augment, own=own, **whole)
    options = tf.data.Options()
    options.deterministic = True
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def part_of_batch(batch_size: int, *, part: tuple[int, int]) -> slice:
    """Rows of one of several parts of a batch: contiguous, of sizes that differ by 1 at most.

    Args:
        batch_size: rows of the whole batch.
        part: `(index, number)`, the index from 0.

    Returns:
        Slice of the rows.

    Raises:
        ValueError: there is no such part, or more parts than rows.

    Example:
        >>> [part_of_batch(5, part=(index, 2)) for index in range(2)]
        [slice(0, 2, None), slice(2, 5, None)]
    """
    index, number = map(operator.index, part)
    if not 0 <= index < number:
        raise ValueError(f"Expected a part (index, number) with 0 <= index < number, found {part}.")
    if number > batch_size:
        raise ValueError(
            f"A batch of {batch_size} rows cannot be split into {number} parts. Take larger "
            "batches (classes_per_batch, examples_per_class) or fewer replicas."
        )
    return slice(batch_size * index // number, batch_size * (index + 1) // number)


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


def _steps(start_step, num_steps):
    """The numbers of the steps to yield."""
    start = operator.index(start_step)
    if start < 0 or (num_steps is not None and operator.index(num_steps) < 0):
        raise ValueError(
            f"Expected start_step and num_steps from 0 on, found {start_step} and {num_steps}."
        )
    end = np.iinfo(np.int64).max if num_steps is None else start + operator.index(num_steps)
    return tf.data.Dataset.range(start, end)


def _augmented(steps, batches, augment, *, own, batch_size, seed):
    """Rows `own` of the batch of each step, with the draws that they have in the whole batch."""
    seed = operator.index(seed)
    seed = np.array([seed >> 32, seed & 0xFFFFFFFF]).astype(np.uint32).view(np.int32)

    def change(step, batch):
        images, ids = batch
        step_seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32))
        if own.stop - own.start == batch_size:
            return augment(images, step_seed), ids
        # In batches of another size the same numbers would be rounded otherwise here and there.
        around = [[own.start, batch_size - own.stop], *[[0, 0]] * (images.shape.rank - 1)]
        return augment(tf.pad(images, around), step_seed)[own], ids

    pairs = tf.data.Dataset.zip((steps, batches))
    return pairs.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def _checked_labels(labels):
    """Labels `[N]` int64."""
    labels = np.asarray(labels)
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


def _at_least_two(value, name, kind):
    if operator.index(value) < 2:
        raise ValueError(
            f"Expected {name} of at least 2, as there are no {kind} else; found {value}."
        )
    return operator.index(value)
