"""Image files in folders."""

import os

from circle_tf.utils import image_files
from export.cli import console

__all__ = ["inside"]


def inside(folder):
    """The image files in a folder and its sub-folders; hidden ones are left alone.

    Args:
        folder: its path.

    Returns:
        sorted list of str, paths within the folder.

    Raises:
        console.ExportError: there are none.
    """
    paths = [os.path.relpath(path, folder) for path in image_files.images_below(folder)]
    if not paths:
        raise console.ExportError(
            f"There are no images in {folder!r} ({', '.join(image_files.SUFFIXES)})."
        )
    return paths
