"""tf.data service: other processes prepare the batches, the same ones in the same order.

`trainers.data_server` runs its processes. The service hands out steps to its workers in no fixed
order and forgets those of a worker that dies. So batches carry their step: a trainer puts them in
order, and prepares by itself what does not arrive. The service makes a run faster, never different.
"""

import queue
import threading
import time
import warnings

import numpy as np
import tensorflow as tf

from circle_tf.data import records, sampling
from trainers.cli import commands
from trainers.input import augment

__all__ = ["batches", "in_order", "own_batches"]

# Steps that may arrive before one that is missing, and seconds without any, before a trainer
# prepares batches by itself.
_AHEAD = 64
_PATIENCE = 30.0


def batches(config, split, *, start_step, num_steps, part):
    """The batches of `pk_dataset`, prepared by the service.

    Args:
        config: recipe; reads `data_service`, `batch`, `augment`, `seed`.
        split: trainers.datasets.Split.
        start_step: int, the first step.
        num_steps: int.
        part: as in `circle_tf.pk_dataset`.

    Returns:
        tf.data.Dataset of (images, ids).

    Raises:
        commands.ConfigError: examples in TFRecord files, which the service cannot read by row.
    """
    served = _served(config, split, start_step=start_step, num_steps=num_steps, part=part)

    def local(step, count):
        own = own_batches(config, split, start_step=step, num_steps=count, part=part)
        return own.as_numpy_iterator()

    def generate():
        yield from in_order(
            served.as_numpy_iterator, local, start_step=start_step, num_steps=num_steps
        )

    signature = served.element_spec[1:]
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4)


def own_batches(config, split, *, start_step, num_steps, part):
    """The batches of `pk_dataset`, prepared in this process.

    Args:
        config: recipe; reads `batch`, `augment`, `seed`.
        split: trainers.datasets.Split.
        start_step: int, the first step.
        num_steps: int.
        part: as in `circle_tf.pk_dataset`.

    Returns:
        tf.data.Dataset of (images, ids).
    """
    return sampling.pk_dataset(
        split.examples,
        split.labels,
        seed=config.seed,
        start_step=start_step,
        num_steps=num_steps,
        decode=split.decode,
        augment=augment.augmenter(config.augment),
        part=part,
        **config.batch,
    )


def in_order(served, local, *, start_step, num_steps):
    """Puts batches in the order of their steps, and makes those that do not arrive.

    Args:
        served: `fn()` that returns an iterator of (step, images, ids), in any order, each step at
            most once; it may fail or stop to answer.
        local: `fn(step, count)` that returns an iterator of (images, ids) of steps.
        start_step: int, the first step.
        num_steps: int.

    Yields:
        (images, ids), in the order of the steps.

    Warns:
        UserWarning: once, when the service has stopped to answer.
    """
    arrivals, ended = queue.Queue(maxsize=_AHEAD), threading.Event()
    threading.Thread(target=_receive, args=(served, arrivals, ended), daemon=True).start()
    waiting = {}
    try:
        for step in range(start_step, start_step + num_steps):
            while step not in waiting and len(waiting) < _AHEAD:
                try:
                    found = arrivals.get(timeout=_PATIENCE)
                except queue.Empty:
                    found = TimeoutError(f"no batch in {_PATIENCE:.0f} s")
                if isinstance(found, Exception):
                    _warn(found, step)
                    yield from _rest(waiting, local, step, start_step + num_steps)
                    return
                waiting[int(found[0])] = found[1:]
            yield waiting.pop(step) if step in waiting else next(local(step, 1))
    finally:
        ended.set()


def _receive(served, arrivals, ended):
    """Passes on what the service sends, and last of all how it ended."""
    try:
        for batch in served():
            if not _put(batch, arrivals, ended):
                return
        error = EOFError("no more batches, though some are missing")
    except Exception as failure:  # the trainer goes on without the service, whatever befell it
        error = failure
    _put(error, arrivals, ended)


def _put(item, arrivals, ended):
    while not ended.is_set():
        try:
            arrivals.put(item, timeout=0.5)
            return True
        except queue.Full:
            time.sleep(0)
    return False


def _rest(waiting, local, step, end):
    """What has arrived and what has not, without the service."""
    while step < end:
        if step in waiting:
            yield waiting.pop(step)
            step += 1
            continue
        until = min([end, *(arrived for arrived in waiting if arrived > step)])
        yield from local(step, until - step)
        step = until


def _warn(error, step):
    warnings.warn(
        f"The tf.data service has stopped to answer at step {step} ({str(error)[:200]}). Training "
        "goes on with the same batches, prepared in this process.",
        stacklevel=3,
    )


def _served(config, split, *, start_step, num_steps, part):
    """A data set of (step, images, ids) that other processes can compute: no Python in it."""
    if isinstance(split.examples, records.RecordFiles):
        raise commands.ConfigError(
            "data_service: records of TFRecord files cannot be read by row without Python. Use "
            "dataset.name=folder, or leave data_service empty."
        )
    sampler = sampling.PKSampler(split.labels, seed=config.seed, **config.batch)
    own = sampling.part_of_batch(sampler.batch_size, part=part)
    rows = np.stack([sampler(start_step + step)[own] for step in range(num_steps)])
    change = augment.augmenter(config.augment)
    if change is not None:
        change = sampling.at_step(change, part=part, batch_size=len(sampler(0)), seed=config.seed)

    def prepare(index):
        chosen = tf.gather(tf.constant(rows), index)
        images = tf.gather(tf.constant(split.examples), chosen)
        if split.decode is not None:
            spec = tf.TensorSpec(_image_shape(split), tf.uint8)
            images = tf.map_fn(
                lambda path: split.decode(tf.io.read_file(path)), images, fn_output_signature=spec
            )
        step = start_step + index
        if change is not None:
            images = change(step, images)
        return step, images, tf.gather(tf.constant(split.labels), chosen)

    dataset = tf.data.Dataset.range(num_steps).map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.apply(
        tf.data.experimental.service.distribute(
            processing_mode=tf.data.experimental.service.ShardingPolicy.DYNAMIC,
            service=f"grpc://{config.data_service.removeprefix('grpc://')}",
        )
    )


def _image_shape(split):
    return split.images([0]).shape[1:]
