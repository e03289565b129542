"""Files on local disks and on the file systems that TensorFlow's `tf.io.gfile` knows by URL."""

import concurrent.futures
import os
from typing import NamedTuple

import tensorflow as tf

__all__ = ["Status", "is_remote", "join", "read", "statuses"]

_AT_A_TIME = 16  # requests to a file system that answers slowly


class Status(NamedTuple):
    """Size in bytes, and when the file was changed, in nanoseconds."""

    size: int
    changed: int


def is_remote(path):
    """Whether a path is a URL, as gs://bucket/a.png, which Python's own functions cannot open."""
    return "://" in path


def join(folder, path):
    """A path that is absolute, a URL, or relative to a folder.

    Args:
        folder: path or URL.
        path: of the file.

    Returns:
        str, normalised where it is no URL.

    Example:
        >>> join("gs://bucket/photos", "a.png"), join("photos", "./b.png"), join("photos", "/c.png")
        ('gs://bucket/photos/a.png', 'photos/b.png', '/c.png')
    """
    if is_remote(path):
        return path
    found = os.path.join(folder, path)
    return found if is_remote(found) else os.path.normpath(found)


def read(path):
    """The bytes of a file.

    Raises:
        tf.errors.OpError: it cannot be read.
    """
    with tf.io.gfile.GFile(path, "rb") as stream:
        return stream.read()


def statuses(paths):
    """What is known of files without reading them.

    Args:
        paths: list of paths, local or URLs.

    Returns:
        list of Status; None for files that are not there.
    """
    if not any(is_remote(path) for path in paths):
        return [_local(path) for path in paths]
    with concurrent.futures.ThreadPoolExecutor(_AT_A_TIME) as pool:
        return list(pool.map(lambda path: (_far if is_remote(path) else _local)(path), paths))


def _local(path):
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: of a null byte within.
        return None
    return Status(found.st_size, found.st_mtime_ns)


def _far(path):
    try:
        found = tf.io.gfile.stat(path)
    except tf.errors.OpError:
        return None
    return Status(found.length, found.mtime_nsec)
