"""Embeddings of many pictures of faces: read in parallel, aligned if asked, with the flip test."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import tqdm

from circle_tf.data import decoding
from circle_tf.evaluation import verification
from trainers.datasets import base
from trainers.evaluation import alignment, metrics

__all__ = ["Pictures", "embed"]

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
    batches = batches.map(decode, tf.data.AUTOTUNE, deterministic=True).batch(_BATCH).prefetch(2)
    call = metrics.caller(model)
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
                f"{name} cannot be read: {str(error).splitlines()[0]}. Look: {check}"
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
    align = alignment.aligned_decoder(shape)
    places = alignment.transforms(pictures.points, side=shape[0])
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
