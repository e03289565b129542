"""Writing files so that a half-written one is never mistaken for a whole one."""

import contextlib
import os

__all__ = ["replacing"]


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
