"""Image files: the formats that are read, and where they lie in a folder. Needs no TensorFlow."""

import collections
import os

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "counted",
    "files_below",
    "images_below",
    "is_hidden",
    "is_image",
    "is_utf8",
    "printable",
    "suffix",
]

# What `circle_tf.data.decoding.decode` reads with TensorFlow 2.21, and the suffixes of each. 2.20,
# of which the newest tensorflow/serving is made, reads no JPEG XL; 2.19 and older no WebP either.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "WebP": (".webp",),
    "JPEG XL": (".jxl",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)


def suffix(path):
    """The suffix of a file's name, in lower case; "" if it has none."""
    return os.path.splitext(path)[1].lower()


def is_image(path):
    """Whether a file's name has the suffix of an image, in upper or lower case.

    Args:
        path: the file; it is not read.

    Returns:
        bool.

    Example:
        >>> is_image("a/b.JPeG"), is_image("a/notes.txt")
        (True, False)
    """
    return suffix(path) in SUFFIXES


def is_hidden(name):
    """Whether a file or folder is none of people's own, as `.ipynb_checkpoints` and `._a.png`.

    Args:
        name: its name, without the folder.

    Returns:
        bool.
    """
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def files_below(folder):
    """The files in a folder and in those below it, but the hidden ones.

    Links are followed, but those that lead back to where one came from.

    Args:
        folder: its path.

    Returns:
        list of paths, sorted; empty where there is none.
    """
    start = os.path.realpath(folder)
    seen, found = set(), []
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen or (real != start and os.path.commonpath([real, start]) == real):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        found += [os.path.join(parent, name) for name in names if not is_hidden(name)]
    return sorted(found)


def images_below(folder):
    """The images among `files_below`.

    Args:
        folder: its path.

    Returns:
        list of paths, sorted; empty where there is none.
    """
    return [path for path in files_below(folder) if is_image(path)]


def counted(files, *, limit=10):
    """How many files there are of each suffix, to be told.

    Args:
        files: their names or paths.
        limit: int, how many suffixes to tell of.

    Returns:
        str, the most frequent first.

    Example:
        >>> counted(["a.txt", "b.TXT", "c.heic", "README"])
        '2 .txt, 1 .heic, 1 without suffix'
    """
    found = collections.Counter(suffix(file) for file in files).most_common()
    told = ", ".join(f"{count} {name or 'without suffix'}" for name, count in found[:limit])
    return told if len(found) <= limit else f"{told} and {len(found) - limit} more"


def is_utf8(name):
    """Whether a name can be written down, as JSON and TensorFlow's strings must be.

    Args:
        name: of a file or folder, as Python has it: bytes that are not UTF-8 are lone surrogates.

    Returns:
        bool.
    """
    return printable(name) == name


def printable(name):
    r"""A name as it can be printed: bytes that are not UTF-8 as their numbers.

    Args:
        name: of a file or folder, as Python has it.

    Returns:
        str.

    Example:
        >>> print(printable("caf\udce9.png"))
        caf\xe9.png
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
