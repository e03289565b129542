"""Batches of P classes x K examples as a `tf.data.Dataset`, from arrays, files and TFRecord.

Choose rows (sampler.py), gather the examples, decode, augment, prefetch.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.data.records import RecordFiles
from circle_tf.data.sampler import PKSampler, checked_labels

__all__ = ["as_examples", "decoder", "gather", "on_own_threads", "part_of_batch", "pk_dataset"]


def pk_dataset(
    examples: ArrayLike | Sequence[str] | RecordFiles,
    labels: ArrayLike,
    *,
    classes_per_batch: int,
    examples_per_class: int,
    seed: int = 0,
    start_step: int = 0,
    num_steps: int | None = None,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    augment: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None = None,
    part: tuple[int, int] = (0, 1),
    nearest_classes: ArrayLike | None = None,
    group_size: int = 2,
) -> tf.data.Dataset:
    """Batches for `model.fit`: the images of P classes x K examples, and their ids.

    Args:
        examples: images `[N, ...]` (anything NumPy takes), N file paths, or a
            `circle_tf.records.RecordFiles` of N records (or what has a `len` and a `fetch` like
            it).
        labels: class of each example `[N]`, integers of any values.
        classes_per_batch: P, at least 2.
        examples_per_class: K, at least 1. Losses on pairs want 2 or more: an example by itself has
            no positive. With class-level labels alone 1 brings the most classes.
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
        nearest_classes: as in `PKSampler`: for each class others that look like it, `[C, n]`, with
            which it then shares batches; None: any classes make a batch.
        group_size: as in `PKSampler`: with `nearest_classes`, how many classes come together.

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
    examples, labels = as_examples(examples, decode=decode), checked_labels(labels)
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
        nearest_classes=nearest_classes,
        group_size=group_size,
    )
    steps = _steps(start_step, num_steps)
    local = part_of_batch(sampler.batch_size, part=part)

    def draw(step):
        rows = sampler(step)[local]
        return rows, labels[rows]

    def choose(step):
        rows, ids = tf.numpy_function(draw, [step], (tf.int64, tf.int64))
        size = [local.stop - local.start]
        return gather(examples, tf.ensure_shape(rows, size)), tf.ensure_shape(ids, size)

    batches = steps.map(choose, num_parallel_calls=2, deterministic=True)
    if decode is not None:
        decode = decoder(examples, decode=decode)
        batches = batches.unbatch().map(
            lambda content, id_: (decode(content), id_), num_parallel_calls=tf.data.AUTOTUNE
        )
        batches = batches.batch(local.stop - local.start, drop_remainder=True)
    if augment is not None:
        whole = {"batch_size": sampler.batch_size, "seed": seed}
        batches = _augmented(steps, batches, augment, local=local, **whole)
    return on_own_threads(batches.prefetch(2))


def on_own_threads(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The data set in its order, prepared by threads of its own, one for each core.

    By default it shares those that run a model's operations side by side, which a deterministic run
    has one of: see docs/runs.md.

    Args:
        dataset: tf.data.Dataset.

    Returns:
        tf.data.Dataset of the same elements.

    Example:
        >>> list(on_own_threads(tf.data.Dataset.range(3)).as_numpy_iterator()) == [0, 1, 2]
        True
    """
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 0  # As many as there are cores.
    # On one core TensorFlow's tuner often misses that its iterator is gone. Whoever drops it, as
    # `fit` does at its end, then waits for the tuner's next turn: up to as long as it has run, and
    # 60 s at most.
    options.autotune.enabled = False
    return dataset.with_options(options)


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


def as_examples(examples, *, decode=None):
    """The form in which `gather` takes examples: an array, or what has a `fetch` as it is.

    Args:
        examples: as in `pk_dataset`; paths become an array of byte strings.
        decode: as in `pk_dataset`.

    Returns:
        An array `[N, ...]`, or the examples themselves.

    Raises:
        ValueError: paths or records without `decode`, or images with it; what has no rows to draw
            from, images of different sizes.
    """
    if _is_fetched(examples):
        strings = True
    else:
        examples = _as_array(examples)
        strings = examples.dtype.kind in "USO"
        if strings:
            examples = np.array([os.fsencode(path) for path in examples], object)
    if strings and decode is None:
        raise ValueError("Expected decode=fn(bytes) -> image for paths or records, found None.")
    if not strings and decode is not None:
        raise ValueError(
            f"Expected decode=None for images in memory (array of {examples.dtype}), found "
            f"{decode}. To change images use augment."
        )
    return examples


def _is_fetched(examples):
    """Whether examples are read by themselves, as those of `RecordFiles`."""
    return hasattr(examples, "fetch")


def _as_array(examples):
    if isinstance(examples, (str, bytes, os.PathLike)):
        raise ValueError(
            f"Expected a list of paths, one for each example, found the one path {examples!r}. For "
            "a file of records give circle_tf.records.RecordFiles([path])."
        )
    has_rows = hasattr(examples, "__len__") and hasattr(examples, "__getitem__")
    if not has_rows or isinstance(examples, (dict, tf.data.Dataset)):
        raise ValueError(
            f"Expected one array of images, or a list of paths, to draw rows from; found "
            f"{type(examples).__name__}. Make a list of what it yields, images and labels apart."
        )
    if isinstance(examples, (list, tuple)) or (
        isinstance(examples, np.ndarray) and examples.dtype.kind == "O"
    ):
        sizes = {np.shape(example) for example in examples}
        if len(sizes) > 1:
            found = " and ".join(str(list(size)) for size in sorted(sizes)[:2])
            raise ValueError(
                f"Expected images of one size, found {found}. Resize them, or give paths and a "
                "decode=fn(bytes of a file) that does."
            )
    return np.asarray(examples)


def gather(examples: Any, rows: tf.Tensor) -> tf.Tensor:
    """Rows of the examples, in TensorFlow.

    Args:
        examples: as `as_examples` returns them.
        rows: indices `[n]` int64, may be symbolic.

    Returns:
        Images `[n, ...]`, or strings `[n]`: paths, or the bytes of records.
    """
    # A NumPy function, because an array turned into a constant would be copied into the graph.
    if _is_fetched(examples):
        contents = tf.numpy_function(
            lambda rows: np.array(examples.fetch(rows), object), [rows], tf.string
        )
        return tf.ensure_shape(contents, rows.shape)
    dtype = tf.string if examples.dtype == object else tf.as_dtype(examples.dtype)
    values = tf.numpy_function(lambda rows: examples[rows], [rows], dtype)
    return tf.ensure_shape(values, [*rows.shape, *examples.shape[1:]])


def decoder(examples, *, decode):
    """What turns one gathered string into an image.

    Args:
        examples: as `as_examples` returns them.
        decode: as in `pk_dataset`.

    Returns:
        `fn(path or bytes) -> image`.
    """
    if _is_fetched(examples):
        return decode
    return lambda path: decode(tf.io.read_file(path))


def _steps(start_step, num_steps):
    """The numbers of the steps to yield."""
    start = operator.index(start_step)
    if start < 0 or (num_steps is not None and operator.index(num_steps) < 0):
        raise ValueError(
            f"Expected start_step and num_steps from 0 on, found {start_step} and {num_steps}."
        )
    end = np.iinfo(np.int64).max if num_steps is None else start + operator.index(num_steps)
    return tf.data.Dataset.range(start, end)


def _augmented(steps, batches, augment, *, local, batch_size, seed):
    """Rows `local` of the batch of each step, with the draws that they have in the whole batch."""
    seed = operator.index(seed)
    seed = np.array([seed >> 32, seed & 0xFFFFFFFF]).astype(np.uint32).view(np.int32)

    def change(step, batch):
        images, ids = batch
        step_seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(step, tf.int32))
        if local.stop - local.start == batch_size:
            return augment(images, step_seed), ids
        # In batches of another size the same numbers would be rounded otherwise here and there.
        around = [[local.start, batch_size - local.stop], *[[0, 0]] * (images.shape.rank - 1)]
        return augment(tf.pad(images, around), step_seed)[local], ids

    pairs = tf.data.Dataset.zip((steps, batches))
    return pairs.map(change, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
