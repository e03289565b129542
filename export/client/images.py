"""What people give as images, as it is sent: the bytes of files, or pixels."""

import collections.abc
import dataclasses
import io
import os

import numpy as np

from export.cli import console

__all__ = [
    "Pairs",
    "are_pixels",
    "as_batch",
    "as_images",
    "as_inputs",
    "as_pairs",
    "each_alone",
    "name",
]

_FILES = (str, os.PathLike, bytes, bytearray, memoryview)
_WANTED = "a path, the bytes of a file, a PIL image or pixels [H, W, C], 0..255"
# Modes of PIL images that a PNG file holds and a server decodes to the same pixels.
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Images two by two, as `as_images` returns each side."""

    a: np.ndarray | list
    b: np.ndarray | list

    def __len__(self):
        return len(self.a)

    def __getitem__(self, part):
        return Pairs(self.a[part], self.b[part])


def as_images(images):
    """Images as they can be cut into batches.

    Args:
        images: paths, bytes of files, PIL images or arrays `[H, W, C]`, in any iterable; one of the
            first three alone; or pixels `[N, H, W, C]`, 0..255.

    Returns:
        Pixels `[N, H, W, C]`, or list of paths, bytes and PIL images.

    Raises:
        console.ExportError: there are none, or they are something else.

    Example:
        >>> as_images("a.png"), as_images(np.zeros([2, 8, 8, 1])).shape
        (['a.png'], (2, 8, 8, 1))
    """
    if isinstance(images, _FILES) or _is_pil(images):
        return [images]
    if isinstance(images, np.ndarray) and images.dtype.kind not in "OSU":
        return _pixels(images)
    if not isinstance(images, collections.abc.Iterable) or getattr(images, "ndim", 1) == 0:
        raise console.ExportError(
            f"Images must be given as a list, each {_WANTED}; found {type(images).__name__}."
        )
    images = list(images)
    if not images:
        raise console.ExportError("There are no images to ask about.")
    is_file = [isinstance(image, _FILES) or _is_pil(image) for image in images]
    if all(is_file):
        return images
    if any(is_file):
        other = type(images[is_file.index(False)]).__name__
        raise console.ExportError(f"Files and pixels cannot be mixed; found {other} beside files.")
    try:
        return _pixels(np.stack([np.asarray(image) for image in images]))
    except ValueError as error:
        if isinstance(error, console.ExportError):
            raise
        shapes = sorted({str(list(np.shape(image))) for image in images})
        raise console.ExportError(
            f"Pixels of a batch must be of one size; found {', '.join(shapes)}. Send files, which "
            "the server resizes."
        ) from error


def as_pairs(a, b):
    """Images two by two.

    Args:
        a: as `as_images` takes them.
        b: as many, of the same kind: files, or pixels.

    Returns:
        Pairs.

    Raises:
        console.ExportError: as `as_images`, or they do not fit.

    Example:
        >>> len(as_pairs("a.png", "b.png"))
        1
    """
    pairs = Pairs(as_images(a), as_images(b))
    if len(pairs.a) != len(pairs.b):
        raise console.ExportError(
            f"Pairs need as many images on both sides; found {len(pairs.a)} and {len(pairs.b)}."
        )
    if are_pixels(pairs.a) != are_pixels(pairs.b):
        raise console.ExportError("Both sides of pairs must be files, or both pixels.")
    return pairs


def are_pixels(images):
    """Whether these are pixels, and not files.

    Args:
        images: as `as_images` or `as_pairs` returns them.

    Returns:
        bool.
    """
    return isinstance(images.a if isinstance(images, Pairs) else images, np.ndarray)


def as_inputs(images):
    """A part of `as_images` or `as_pairs` as a signature takes it.

    Args:
        images: as they return them.

    Returns:
        dict of input name to array.

    Raises:
        OSError: a file cannot be read.
    """
    kind = "images" if are_pixels(images) else "image_bytes"
    if isinstance(images, Pairs):
        return {f"{kind}_a": as_batch(images.a), f"{kind}_b": as_batch(images.b)}
    return {kind: as_batch(images)}


def each_alone(images, start):
    """Each file of a batch by itself, to find out which one is refused.

    Args:
        images: list of files, or Pairs of these.
        start: int, the place of the first.

    Yields:
        `(place, file, what to ask)`.
    """
    if not isinstance(images, Pairs):
        yield from ((at, image, [image]) for at, image in enumerate(images, start))
        return
    for at, sides in enumerate(zip(images.a, images.b, strict=True), start):
        yield from ((at, image, Pairs([image], [image])) for image in sides)


def as_batch(images):
    """A part of `as_images` as an array to send: float32 pixels, or the bytes of files.

    Args:
        images: as `as_images` returns them.

    Returns:
        `[N, H, W, C]` float32, or `[N]` array of bytes objects.

    Raises:
        OSError: a file cannot be read.
    """
    if isinstance(images, np.ndarray):
        return images.astype(np.float32)
    contents = np.empty(len(images), object)
    contents[:] = [_content(image) for image in images]
    return contents


def name(image, number):
    """What to call an image in a message: its path, if there is one.

    Args:
        image: one of `as_images`.
        number: int, its place, from 0.

    Returns:
        str.
    """
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {number}"


def _pixels(array):
    if array.dtype.kind not in "iuf":
        raise console.ExportError(f"Images must be {_WANTED}; found {array.dtype}.")
    if array.ndim != 4:
        hint = " One image alone is image[None]." if array.ndim == 3 else ""
        raise console.ExportError(
            f"Pixels must be [N, H, W, C]; found shape {list(array.shape)}.{hint}"
        )
    if not len(array):
        raise console.ExportError("There are no images to ask about.")
    return array


def _is_pil(image):
    """Whether this is a PIL image, told without PIL, which who has none need not install."""
    return any(kind.__module__ == "PIL.Image" for kind in type(image).__mro__)


def _content(image):
    if isinstance(image, str | os.PathLike):
        with open(image, "rb") as stream:
            return stream.read()
    if not _is_pil(image):
        return bytes(image)
    stream = io.BytesIO()
    image = image if image.mode in _PNG_MODES else image.convert("RGB")
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()
