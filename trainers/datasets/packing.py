"""Packs labelled images into TFRecord files: several at a time, and resumable."""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from circle_tf.utils import files
from trainers.datasets import base

__all__ = [
    "Images",
    "Record",
    "folder_when_complete",
    "of_collection",
    "of_recordio",
    "pack",
    "write_shard",
]

_PLAN = "plan.json"


class Record(NamedTuple):
    """One image to write: the bytes of its file, its class, where it came from, its camera."""

    image: bytes
    label: int
    class_name: str
    path: str
    camera: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
    """Images to pack.

    Args:
        sizes: bytes of each, about `[N]`.
        marks: a text for each `[N]` that changes when its content does.
        record: `fn(row) -> Record`; called from several threads.
    """

    sizes: np.ndarray
    marks: list
    record: Callable[[int], Record]

    def digest(self):
        """A text that differs for other images."""
        found = hashlib.sha256()
        for mark in self.marks:
            found.update(os.fsencode(str(mark)) + b"\0")
        return found.hexdigest()


def of_collection(found, *, numbers=None) -> Images:
    """The images of files; of parts of images PNG files of their own.

    Args:
        found: trainers.datasets.collection.Collection.
        numbers: dict of class name to label, None for its place in the collection.

    Returns:
        Images.
    """

    def record(row):
        name = found.class_names[found.labels[row]]
        label = int(found.labels[row]) if numbers is None else numbers[name]
        camera = None if found.cameras is None else int(found.cameras[row])
        return Record(found.file_content(row), label, name, found.path_within(row), camera)

    return Images(found.sizes(), list(found.fingerprints), record)


def of_recordio(records) -> Images:
    """The images of an open RecordIO file; a class is named by its number.

    Args:
        records: trainers.datasets.faces.recordio.RecordIO.

    Returns:
        Images.
    """
    alone = threading.Lock()  # Reading moves the file's one position.

    def record(row):
        number = records.numbers[row]
        with alone:
            content, label = records.read(number)
        return Record(content, label, str(label), str(number))

    sizes = records.sizes()
    return Images(sizes, list(zip(records.numbers, sizes.tolist(), strict=True)), record)


@contextlib.contextmanager
def folder_when_complete(output):
    """A folder to write into, which gets its name only when all went well.

    Until then its name ends in `.partial`; whoever writes the same again finds there what was done.

    Args:
        output: path of the folder; must not exist.

    Yields:
        path to write into.

    Raises:
        base.DataError: another process writes it at this moment.
    """
    partial = f"{output}.partial"
    os.makedirs(partial, exist_ok=True)
    lock = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise base.DataError(
                f"Another process is writing {partial} now: let it finish, or stop it."
            ) from None
        yield partial
        for folder, _, names in os.walk(partial):
            for name in names:
                if name == _PLAN or name.startswith("."):  # A shard that a kill cut off.
                    os.remove(os.path.join(folder, name))
        os.rename(partial, output)
    finally:
        os.close(lock)


def pack(images: Images, folder: str, *, shard_bytes: int, workers: int, pool=None) -> int:
    """Writes shards with their indices, but those that are there already from a run before.

    Which image comes into which shard depends on the images and `shard_bytes` alone, so that the
    files are the same whoever writes them.

    Args:
        images: what to write.
        folder: where; made if need be.
        shard_bytes: size of a shard, about.
        workers: shards that are written at a time.
        pool: `fn(count) -> iterator of the images that each finished shard holds`, which has other
            processes call `write_shard`; None: threads of this one write.

    Returns:
        Number of shards.

    Raises:
        base.DataError: the folder holds shards of other images, or an image cannot be read.
    """
    count = min(len(images.sizes), max(1, -(-int(images.sizes.sum()) // shard_bytes)))
    _claim(folder, {"shards": count, "images": images.digest()})
    if pool is None:
        _pack_by_threads(images, folder, count, workers=workers)
        return count
    import tqdm

    with tqdm.tqdm(total=len(images.sizes), desc="writing images", disable=None) as bar:
        for done in pool(count):
            bar.update(done)
    return count


def write_shard(images: Images, folder: str, shard: int, count: int, *, tell=lambda done=1: None):
    """Writes one of `count` shards, if it is not there.

    Args:
        images: all that is packed.
        folder: where.
        shard: its number.
        count: of all shards.
        tell: `fn(done=1)` that is called with the images written.
    """
    # The shard in which the middle of each image comes to lie.
    middles = np.cumsum(images.sizes) - images.sizes / 2
    shard_of = (middles * count / images.sizes.sum()).astype(int)
    path = os.path.join(folder, f"images-{shard:05d}-of-{count:05d}.tfrecord")
    _write_shard(path, images, np.flatnonzero(shard_of == shard), tell=tell)


def _pack_by_threads(images, folder, count, *, workers):
    import tqdm

    stopped, counting = threading.Event(), threading.Lock()
    with tqdm.tqdm(total=len(images.sizes), desc="writing images", disable=None) as bar:

        def tell(done=1):
            with counting:
                bar.update(done)
            if stopped.is_set():
                raise concurrent.futures.CancelledError

        def write(shard):
            write_shard(images, folder, shard, count, tell=tell)

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(write, shard) for shard in range(count)]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise


def _claim(folder, plan):
    """Begins a plan, or goes on with the same one."""
    path = os.path.join(folder, _PLAN)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            before = json.load(stream)
        if before != plan:
            raise base.DataError(
                f"{folder} holds the beginning of another conversion (other images, or another "
                "--shard_megabytes): remove it, or convert what it was begun with."
            )
        return
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        json.dump(plan, stream)


def _write_shard(path, images, rows, *, tell):
    import tensorflow as tf

    from circle_tf.data.records import write_index

    # The index comes last: a shard that has one is whole.
    if os.path.exists(f"{path}.index.npz"):
        tell(len(rows))
        return
    with files.replacing(path) as partial, tf.io.TFRecordWriter(partial) as writer:
        for row in rows:
            # Else the order of the features is another one in each process.
            writer.write(_example(images.record(row)).SerializeToString(deterministic=True))
            tell()
    write_index(path)


def _example(record):
    import tensorflow as tf

    def of_bytes(text):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[text]))

    def of_number(number):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))

    feature = {
        "image": of_bytes(record.image),
        "label": of_number(record.label),
        "class": of_bytes(os.fsencode(record.class_name)),
        "path": of_bytes(os.fsencode(record.path)),
    }
    if record.camera is not None:
        feature["camera"] = of_number(record.camera)
    return tf.train.Example(features=tf.train.Features(feature=feature))
