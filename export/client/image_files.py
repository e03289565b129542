"""Image files in folders."""

import os

from export.cli import console

__all__ = ["inside"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")


def inside(folder):
    """The image files in a folder and its sub-folders.

    Args:
        folder: its path.

    Returns:
        sorted list of str, paths within the folder.

    Raises:
        console.ExportError: there are none.
    """
    paths = sorted(
        os.path.relpath(os.path.join(where, name), folder)
        for where, _, names in os.walk(folder)
        for name in names
        if name.lower().endswith(_SUFFIXES)
    )
    if not paths:
        raise console.ExportError(f"There are no images in {folder!r} ({', '.join(_SUFFIXES)}).")
    return paths
