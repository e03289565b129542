"""Image files in folders."""

import os
import sys

from circle_tf.utils import image_files
from export.cli import console

__all__ = ["inside"]


def inside(folder):
    """The image files in a folder and its sub-folders; hidden ones are left alone.

    Other files are told of on stderr.

    Args:
        folder: its path.

    Returns:
        sorted list of str, paths within the folder.

    Raises:
        console.ExportError: there are none, or a path is not UTF-8, as an id must be.
    """
    found = [os.path.relpath(path, folder) for path in image_files.files_below(folder)]
    paths = [path for path in found if image_files.is_image(path)]
    others = image_files.counted(path for path in found if not image_files.is_image(path))
    if not paths:
        raise console.ExportError(
            f"There are no images in {folder!r} ({', '.join(image_files.SUFFIXES)})"
            + (f"; other files: {others}." if others else ".")
        )
    if odd := [image_files.printable(path) for path in paths if not image_files.is_utf8(path)]:
        more = f" and {len(odd) - 10} more" if len(odd) > 10 else ""
        raise console.ExportError(
            f"{folder}: paths become ids, which must be UTF-8; found {len(odd)} that are not: "
            f"{', '.join(odd[:10])}{more}. Rename them."
        )
    if others:
        print(f"warning: {folder}: left out files that are no images: {others}.", file=sys.stderr)
    return paths
