"""Other processes that look at images and pack them, each with Python and TensorFlow of its own."""

import functools
import multiprocessing
from typing import NamedTuple

import numpy as np

from circle_tf.utils import quiet
from trainers.datasets import base, packing, sources
from trainers.datasets.collection import inspect

__all__ = ["Workers", "begin"]

_CHUNKS = 4  # of what is looked at, for each process: one that is slow holds less up
_own, _packed = {}, {}  # In a worker: the images by part, and as they are packed.


class Workers:
    """Processes that read the same images; for use in a `with` block.

    Args:
        source: sources.Source, which each lists for itself.
        count: how many.
    """

    def __init__(self, source, count):
        # Not forked: TensorFlow has threads already.
        context = multiprocessing.get_context("spawn")
        self._pool = context.Pool(count, quiet.call, [__name__, "begin", *source])
        self._count = count

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.terminate()
        self._pool.join()

    def look(self, part):
        """`fn(collection, rows=, tell=)` as `collection.inspect`, for one part of the source."""
        return functools.partial(self._look, part)

    def pack(self, part, whole, found, *, numbers, folder):
        """As `packing.pack` takes a `pool`.

        Args:
            part: name of the part.
            whole: collection.Collection, the part as the source has it.
            found: what is left of it.
            numbers: as of `packing.of_collection`.
            folder: where to write.
        """
        lost = np.setdiff1d(whole.names, found.names)
        job = _Job(part, lost, len(found.labels), numbers, folder)

        def write(count):
            return self._pool.imap_unordered(_write, [(job, n, count) for n in range(count)])

        return write

    def _look(self, part, found, *, rows, tell=None):
        chunks = [c for c in np.array_split(rows, _CHUNKS * self._count) if len(c)]
        looks = []
        for seen in self._pool.imap(_inspect, [(part, len(found.labels), c) for c in chunks]):
            looks += seen
            if tell is not None:
                tell(len(seen))
        return looks


class _Job(NamedTuple):
    """What is packed: a part but the images `lost`, of which `count` are left."""

    part: str
    lost: np.ndarray
    count: int
    numbers: dict
    folder: str


def begin(*source):
    """What a worker does first.

    Args:
        *source: the fields of sources.Source, which a worker would import TensorFlow for.
    """
    _own.update(sources.collect(sources.Source(*source)))


def _inspect(task):
    part, count, rows = task
    return inspect(_same(_own[part], count), rows=rows)


def _write(task):
    job, shard, count = task
    if job.part not in _packed:
        found = _own[job.part]
        if len(job.lost):
            found = found.take(np.flatnonzero(~np.isin(found.names, job.lost)))
        images = packing.of_collection(_same(found, job.count), numbers=job.numbers)
        _packed[job.part] = images
    done = []
    packing.write_shard(
        _packed[job.part], job.folder, shard, count, tell=lambda n=1: done.append(n)
    )
    return sum(done)


def _same(found, count):
    if len(found.labels) != count:
        raise base.DataError(f"{found.root} changes while it is read: give the command again.")
    return found
