"""Writing files: whole ones or none, and what the disk refuses in words."""

import contextlib
import errno
import os
import re

__all__ = ["disk_errors", "replacing"]

# Full, over quota, too large for the file system, read-only, forbidden, broken, under a file.
_REFUSALS = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ENOTDIR")
_REASONS = {os.strerror(getattr(errno, name)) for name in _REFUSALS if hasattr(errno, name)}


@contextlib.contextmanager
def disk_errors(folder):
    """Says in one sentence what the disk refused while the block wrote into a folder.

    TensorFlow's errors are told alike: their types say little (a full disk is "resource exhausted",
    a file that is too large "out of range", by which `keras.Model.fit` knows the end of the data).

    Args:
        folder: what the block writes below.

    Yields:
        None.

    Raises:
        OSError: the disk is full, read-only or broken, or permission is missing.

    Example:
        >>> with disk_errors("/dev/full"), open("/dev/full", "w") as file:
        ...     _ = file.write("text")
        Traceback (most recent call last):
        ...
        OSError: /dev/full cannot be written to: No space left on device. Make room or allow...
    """
    try:
        yield
    except Exception as error:  # TensorFlow is not imported for its errors' sake.
        path, reason = _refused(error)
        if reason not in _REASONS or not _is_below(path, folder):
            raise
        raise OSError(
            f"{folder} cannot be written to: {reason}. Make room or allow writing there, then give "
            "the same command again: what was whole before still is."
        ) from error


@contextlib.contextmanager
def replacing(path):
    """A temporary path beside `path`, which takes its place once the block has succeeded.

    Folders are made as needed. If the block raises, what it wrote is removed and an older file at
    `path` stays.

    Args:
        path: the file to write.

    Yields:
        str, the path to write to; it ends like `path`.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with replacing(os.path.join(folder, "runs", "a.txt")) as partial:
        ...     with open(partial, "w") as stream:
        ...         _ = stream.write("whole")
        >>> os.listdir(os.path.join(folder, "runs"))
        ['a.txt']
    """
    folder, name = os.path.split(os.fspath(path))
    os.makedirs(folder or ".", exist_ok=True)
    partial = os.path.join(folder, f".{os.getpid()}.partial.{name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)


def _refused(error):
    """Path, if it is told, and reason of a system's error, also in TensorFlow's words."""
    if isinstance(error, OSError):
        return error.filename, error.strerror
    found = re.match(r"(?:{{.*?}} )?(.*); ([^;\[]*?)(?: \[Op:.*)?$", str(error), re.DOTALL)
    return found.groups() if found else (None, None)


def _is_below(path, folder):
    if path is None:
        return True
    folder, path = os.path.abspath(folder), os.path.abspath(os.fsdecode(path))
    return os.path.commonpath([folder, path]) == folder
