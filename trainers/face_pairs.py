"""Verification sets, whose question is whether two pictures are of one person."""

import os

import numpy as np
import tensorflow as tf
import tqdm

from circle_tf import verification
from trainers.datasets import base, face_bin, images, layouts, lfw

__all__ = ["verify"]

_BATCH = 128
_FOLDS = 10


def verify(model, path):
    """Accuracy over ten folds and TAR at FAR of a model on pairs of pictures.

    Pictures are resized to the model's input, embedded with their mirror images (the flip test),
    and compared by cosine.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        path: a `.bin` file, or the folder of LFW with `lfw` and `pairs.txt`.

    Returns:
        dict as of `circle_tf.verification.verification_report`.

    Raises:
        base.DataError: it is not there, holds no pairs in ten folds, or a picture cannot be read.
    """
    pictures, places, same = _read_bin(path) if os.path.isfile(path) else _read_lfw(path)
    if not len(same) or len(same) % _FOLDS or same.all() or not same.any():
        raise base.DataError(
            f"{path}: expected pairs of both kinds, a multiple of {_FOLDS} for the ten folds; "
            f"found {same.sum()} pairs of one person and {(~same).sum()} of two."
        )
    embeddings = _embed(model, pictures, where=path)
    similarities = verification.pair_similarities(*(embeddings[rows] for rows in places))
    return verification.verification_report(similarities, same, folds=_FOLDS)


def _read_bin(path):
    """(functions that read a picture, places of the first and second of each pair, same)."""
    contents, same = face_bin.read(path)
    rows = np.arange(len(contents)).reshape(-1, 2).T
    return [lambda content=content: content for content in contents], rows, same


def _read_lfw(path):
    root = layouts.find_root(path, [], holds="pairs.txt", name="lfw")
    first, second, same = lfw.read_pairs(root)
    names, places = np.unique([*first, *second], return_inverse=True)

    def reader(name):
        def read():
            with open(os.path.join(root, name), "rb") as stream:
                return stream.read()

        return read

    return [reader(name) for name in names], places.reshape(2, -1), same


def _embed(model, pictures, *, where):
    """Unit embeddings `[N, D]` of pictures and their mirror images."""
    shape = model.input_shape[1:]
    decode = images.image_decoder(shape)
    pixels = tf.TensorSpec([None, *shape], tf.float32)
    call = tf.function(lambda batch: model(batch, training=False), input_signature=[pixels])
    found = []
    for start in tqdm.trange(0, len(pictures), _BATCH, desc=os.path.basename(where), disable=None):
        batch = [
            _decoded(decode, read, where=f"{where}: picture {start + number}")
            for number, read in enumerate(pictures[start : start + _BATCH])
        ]
        embed = lambda batch: call(tf.cast(batch, tf.float32)).numpy()  # noqa: E731
        found.append(verification.flip_test_embeddings(embed, np.stack(batch)))
    return np.concatenate(found)


def _decoded(decode, read, *, where):
    try:
        return decode(tf.constant(read())).numpy()
    except (tf.errors.InvalidArgumentError, OSError) as error:
        raise base.DataError(
            f"{where} cannot be read: {str(error).splitlines()[0]}. Look: python -m trainers.data "
            "check --dataset=face_bin (or lfw)."
        ) from error
