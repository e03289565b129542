"""Pictures of faces: put into place by five points, and embedded with the flip test."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tqdm

from circle_tf.data import decoding, pipeline
from circle_tf.evaluation import verification
from circle_tf.utils import errors
from trainers.datasets import base
from trainers.evaluation import metrics

__all__ = ["REFERENCE", "Pictures", "aligned_decoder", "embed", "transforms"]

# Eyes, nose and corners of the mouth, x and y, in a picture of 112 x 112: those of published face
# data (Deng et al., "ArcFace", CVPR 2019).
REFERENCE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_SIDE = 112
_BATCH = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures to embed.

    Args:
        names: of each, for messages; where `contents` is None, its file.
        contents: bytes of each file, or None to read them.
        points: `[N, 5, 2]` to align by, or None to resize.
    """

    names: Sequence[str]
    contents: Sequence[bytes] | None = None
    points: np.ndarray | None = None


def embed(model, pictures, *, title, check):
    """Unit embeddings of pictures and their mirror images, added (the flip test).

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        pictures: Pictures.
        title: of the progress bar.
        check: command that looks at the data, for messages.

    Returns:
        `[N, D]` float32.

    Raises:
        base.DataError: a picture cannot be read; it is named.
    """
    shape = model.input_shape[1:]
    decode, inputs = _decoder(pictures, shape)
    batches = tf.data.Dataset.from_tensor_slices(inputs)
    batches = batches.map(decode, tf.data.AUTOTUNE).batch(_BATCH).prefetch(2)
    batches = pipeline.on_own_threads(batches)
    call = metrics.Embedder(model)
    found = [np.zeros([0, model.output_shape[-1]], np.float32)]
    count = len(pictures.names)
    with tqdm.tqdm(total=count, desc=title, unit="image", disable=None) as bar:
        try:
            for batch in batches.as_numpy_iterator():
                found.append(verification.flip_test_embeddings(call, batch))
                bar.update(len(batch))
        except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
            name = _unreadable(decode, inputs, pictures.names, start=bar.n)
            raise base.DataError(
                f"{name} cannot be read: {errors.reason(error)}. Look: {check}"
            ) from error
    return np.concatenate(found)


def _decoder(pictures, shape):
    """`(fn(one of inputs) -> pixels, inputs)`."""
    held = pictures.contents is not None
    read = tf.identity if held else tf.io.read_file
    sources = np.array(list(pictures.contents if held else pictures.names), object)
    if pictures.points is None:
        decode = decoding.image_decoder(shape)
        return (lambda source: decode(read(source))), sources
    align = aligned_decoder(shape)
    places = transforms(pictures.points, side=shape[0])
    return (lambda source, place: align(read(source), place)), (sources, places)


def _unreadable(decode, inputs, names, *, start):
    """The first picture from `start` on that cannot be decoded."""
    columns = inputs if isinstance(inputs, tuple) else (inputs,)
    for row in range(start, len(names)):
        try:
            decode(*(tf.constant(column[row]) for column in columns))
        except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError):
            return names[row]
    return f"A picture after {names[start]}"


def transforms(points, *, side):
    """Where each pixel of an aligned picture comes from.

    The similarity (turn, scale, shift) that brings the points nearest to the reference in the mean
    square; in two dimensions that is the complex line `w = a z + b` (Umeyama, PAMI 1991).

    Args:
        points: `[N, 5, 2]`, x and y in pixels of the picture as it is.
        side: int, of the aligned picture in pixels.

    Returns:
        `[N, 8]` float32, rows as `tf.raw_ops.ImageProjectiveTransformV3` takes them.

    Raises:
        ValueError: points of another shape, not finite, or all in one place.

    Example:
        >>> abs(transforms(REFERENCE[None] + 10, side=112)).round(3).tolist()
        [[1.0, 0.0, 10.0, 0.0, 1.0, 10.0, 0.0, 0.0]]
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 3 or points.shape[1:] != REFERENCE.shape or not np.isfinite(points).all():
        raise ValueError(f"points must be finite, of shape [N, 5, 2]; found {list(points.shape)}.")
    source, target = points @ [1, 1j], REFERENCE @ [1, 1j] * (side / _SIDE)
    means = source.mean(axis=1, keepdims=True)
    spread = (np.abs(source - means) ** 2).sum(axis=1)
    if not spread.all():
        raise ValueError(f"The five points of face {int(np.argmin(spread))} are in one place.")
    a = (np.conj(source - means) * (target - target.mean())).sum(axis=1) / spread
    inverse, shift = 1 / a, means[:, 0] - target.mean() / a
    zero = np.zeros_like(shift.real)
    across = [inverse.real, -inverse.imag, shift.real]
    down = [inverse.imag, inverse.real, shift.imag]
    return np.stack([*across, *down, zero, zero], axis=1).astype(np.float32)


def aligned_decoder(image_shape):
    """Makes what turns the bytes of a file into an aligned face.

    Args:
        image_shape: `(H, H, C)` in pixels; C is 1 for grey, 3 for colour.

    Returns:
        `fn(bytes of a file, transform [8]) -> [H, H, C] uint8`; black where there is no picture.

    Raises:
        ValueError: not square.

    Example:
        >>> content = tf.io.encode_png(tf.fill([112, 112, 3], tf.constant(7, tf.uint8)))
        >>> aligned_decoder((8, 8, 1))(content, transforms(REFERENCE[None], side=8)[0]).shape
        TensorShape([8, 8, 1])
    """
    height, width, channels = image_shape
    if height != width:
        raise ValueError(f"Faces are aligned to squares; the model takes {height} x {width}.")

    def decode(content, transform):
        image = decoding.as_channels(decoding.decode(content), channels)
        placed = tf.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=transform[None],
            output_shape=[height, width],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
        return decoding.as_pixels(placed[0], image_shape)

    return decode
