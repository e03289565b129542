"""A disk that is full, as far as this process can tell."""

import contextlib
import resource

__all__ = ["full_beyond"]


@contextlib.contextmanager
def full_beyond(size):
    """Within it no file can be made longer than `size` bytes: writing more is refused."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))
