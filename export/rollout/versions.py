"""The base path of a served model: numbered versions, published one at a time by rename."""

import contextlib
import fcntl
import os
import shutil
import tempfile

from export.cli import console

__all__ = ["STAGE_PREFIX", "choose", "existing", "exclusive", "path", "staging"]

STAGE_PREFIX = ".tmp-"  # TF Serving reads names that are whole numbers, and no others.
_LOCK = ".publish.lock"


def existing(base_path):
    """The versions under a base path.

    Args:
        base_path: directory; need not exist.

    Returns:
        Ascending list of int.

    Example:
        >>> with tempfile.TemporaryDirectory() as base_path:
        ...     for name in ("2", "10", ".tmp-11", "notes"):
        ...         os.mkdir(os.path.join(base_path, name))
        ...     existing(base_path)
        [2, 10]
    """
    if not os.path.isdir(base_path):
        return []
    return sorted(int(name) for name in os.listdir(base_path) if _is_number(name))


def path(base_path, version):
    """The directory of a version, also if its name has leading zeros.

    Args:
        base_path: directory.
        version: int, an existing one.

    Returns:
        str.

    Raises:
        console.ExportError: there is no such version.
    """
    names = os.listdir(base_path) if os.path.isdir(base_path) else []
    for name in names:
        if _is_number(name) and int(name) == version:
            return os.path.join(base_path, name)
    raise console.ExportError(f"There is no version {version} in {base_path!r}.")


def choose(base_path, *, wanted=None):
    """The number of the next version: one more than the highest, or the one that is wanted.

    Args:
        base_path: directory; need not exist.
        wanted: int of 1 or more, above all existing versions; None to choose.

    Returns:
        int.

    Raises:
        console.ExportError: `wanted` is taken or too low, or `base_path` is not a base path.
    """
    if "://" in base_path:
        raise console.ExportError(
            f"{base_path!r} is not a local directory. Publish to a local one and copy the version "
            "under a temporary name; versions must appear by rename."
        )
    if os.path.exists(os.path.join(base_path, "saved_model.pb")):
        raise console.ExportError(
            f"{base_path!r} is itself a SavedModel. Give the directory above it, which holds the "
            "numbered versions."
        )
    highest = max(existing(base_path), default=0)
    if wanted is None:
        return highest + 1
    if wanted in existing(base_path):
        raise console.ExportError(
            f"Version {wanted} exists in {base_path!r} and is never replaced: a server may be "
            f"using it. Leave --version out to publish version {highest + 1}."
        )
    if wanted <= highest:
        raise console.ExportError(
            f"Version {wanted} is not above the highest in {base_path!r}, {highest}: TF Serving "
            f"would not serve it. Leave --version out to publish version {highest + 1}."
        )
    return wanted


@contextlib.contextmanager
def exclusive(base_path, *, tell, name=_LOCK):
    """Holds the base path's lock, so that two publishers do not choose the same version.

    The lock ends with the process, however that ends.

    Args:
        base_path: directory; made if it is not there.
        tell: `fn(line)`, called if the lock has to be waited for.
        name: file name of the lock.
    """
    os.makedirs(base_path, exist_ok=True)
    with open(os.path.join(base_path, name), "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"Waiting for another publish to {base_path} to end.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staging(base_path):
    """A hidden directory to prepare a version in, on the same disk; removed at the end.

    Call within `exclusive`: what other publishers left is then known to be dead, and is removed.

    Args:
        base_path: directory.

    Yields:
        str, its path.
    """
    for name in os.listdir(base_path):
        if name.startswith(STAGE_PREFIX):
            shutil.rmtree(os.path.join(base_path, name), ignore_errors=True)
    stage = tempfile.mkdtemp(prefix=STAGE_PREFIX, dir=base_path)
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _is_number(name):
    return name.isascii() and name.isdigit()
