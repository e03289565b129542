"""Face verification sets as `.bin` files: lfw, cfp_fp, agedb_30 and their like.

Such a file is a pickle of (list of encoded images, list of bool), and a pickle can run any program
when it is read. Only what these files are made of is let through: lists, bytes, bools, and NumPy's
arrays and bools, as either version of NumPy pickles them under any protocol.
"""

import io
import pickle

import numpy as np

from trainers.datasets import base

__all__ = ["read"]

_CORES = ("numpy.core", "numpy._core")  # Of NumPy 1 and 2.
_ALLOWED = {
    *((f"{core}.multiarray", "_reconstruct") for core in _CORES),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


def _scalar(dtype, content):
    """A bool or number of NumPy's; its own function would also take objects."""
    if dtype.kind not in "biuf":
        raise pickle.UnpicklingError(f"it wants to load a scalar of {dtype}")
    return np.frombuffer(content, dtype)[0]


def _array(content, dtype, shape, order):
    """An array of NumPy's by the newest protocol."""
    return np.frombuffer(content, dtype).reshape(shape, order=order)


_INSTEAD = {  # Harmless functions of our own for NumPy's.
    **{(f"{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"{core}.numeric", "_frombuffer"): _array for core in _CORES},
}


class _Restricted(pickle.Unpickler):
    """Loads the harmless only."""

    def find_class(self, module, name):
        if (module, name) in _INSTEAD:
            return _INSTEAD[module, name]
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}")
        return super().find_class(module, name)


def read(path: str) -> tuple[list[bytes], np.ndarray]:
    """Reads pairs of images.

    Args:
        path: the file.

    Returns:
        `(images, same)`: 2 P encoded images, of which 2 i and 2 i + 1 are a pair, and `[P]` bool,
        whether a pair is of one person.

    Raises:
        base.DataError: it is no such file, holds something that could run a program, or its
            numbers do not fit.
        FileNotFoundError: there is no such file.
    """
    with open(path, "rb") as stream:
        content = stream.read()
    try:
        # Written by Python 2, as most are: its strings are bytes.
        images, same = _Restricted(io.BytesIO(content), encoding="bytes").load()
        images = [_as_bytes(image) for image in images]
        same = np.asarray(list(same)).astype(bool)
    except (pickle.UnpicklingError, AttributeError, EOFError, ImportError, IndexError) as error:
        raise base.DataError(
            f"{path}: refused: {error}. Expected a pickle of encoded images and bools, and nothing "
            "that could run a program. Take the file from another source."
        ) from error
    except (TypeError, ValueError, KeyError, MemoryError, UnicodeDecodeError) as error:
        raise base.DataError(
            f"{path}: expected a pickle of (encoded images, bools), found another one: {error}."
        ) from error
    if same.ndim != 1 or len(images) != 2 * len(same) or not len(same):
        raise base.DataError(
            f"{path}: expected two images for each pair; found {len(images)} images and "
            f"{same.size} pairs."
        )
    return images, same


def _as_bytes(image):
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image.tobytes()
    if not isinstance(image, bytes):
        raise TypeError(f"an image is a {type(image).__name__}")
    return image
