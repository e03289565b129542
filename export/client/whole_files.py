"""Files of the client that appear whole or not at all, without importing the library."""

import contextlib
import os

__all__ = ["writing"]


@contextlib.contextmanager
def writing(path):
    """A stream to write a file's bytes to; the file appears when the block has succeeded.

    Args:
        path: the file; an older one stays until then.

    Yields:
        binary stream.

    Example:
        >>> import tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "a.bin")
        >>> with writing(path) as stream:
        ...     _ = stream.write(b"whole")
        >>> os.listdir(os.path.dirname(path))
        ['a.bin']
    """
    partial = f"{os.fspath(path)}.{os.getpid()}.partial"
    try:
        with open(partial, "wb") as stream:
            yield stream
        os.replace(partial, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(partial)
