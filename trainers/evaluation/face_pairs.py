"""Verification sets, whose question is whether two pictures are of one person."""

import os

import numpy as np

from circle_tf.evaluation import verification
from trainers.datasets import base
from trainers.datasets.faces import face_bin, lfw
from trainers.datasets.published import layouts
from trainers.evaluation import face_images

__all__ = ["verify"]

_FOLDS = 10


def verify(model, path):
    """Accuracy over ten folds and TAR at FAR of a model on pairs of pictures.

    Pictures are resized to the model's input, embedded with their mirror images (the flip test),
    and compared by cosine.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        path: a `.bin` file, or the folder of LFW with `lfw` and `pairs.txt`.

    Returns:
        dict as of `circle_tf.evaluation.verification.verification_report`.

    Raises:
        base.DataError: it is not there, holds no pairs in ten folds, or a picture cannot be read.
    """
    is_file = os.path.isfile(path)
    pictures, places, same = _read_bin(path) if is_file else _read_lfw(path)
    if not len(same) or len(same) % _FOLDS or same.all() or not same.any():
        raise base.DataError(
            f"{path}: expected pairs of both kinds, a multiple of {_FOLDS} for the ten folds; "
            f"found {same.sum()} pairs of one person and {(~same).sum()} of two."
        )
    kind = "face_bin" if is_file else "lfw"
    embeddings = face_images.embed(
        model,
        pictures,
        title=os.path.basename(os.path.normpath(path)),
        check=f"python -m trainers.data check --dataset={kind} --path={path}",
    )
    similarities = verification.pair_similarities(*(embeddings[rows] for rows in places))
    return verification.verification_report(similarities, same, folds=_FOLDS)


def _read_bin(path):
    """(pictures, places of the first and second of each pair, same)."""
    contents, same = face_bin.read(path)
    names = [f"{path}: picture {number}" for number in range(len(contents))]
    rows = np.arange(len(contents)).reshape(-1, 2).T
    return face_images.Pictures(names, contents), rows, same


def _read_lfw(path):
    root = layouts.find_root(path, [], holds="pairs.txt", name="lfw")
    first, second, same = lfw.read_pairs(root)
    names, places = np.unique([*first, *second], return_inverse=True)
    files = [os.path.join(root, name) for name in names]
    return face_images.Pictures(files), places.reshape(2, -1), same
