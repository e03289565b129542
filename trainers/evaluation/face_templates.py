"""IJB-C: verification of templates, which are several pictures of a person."""

import os

import numpy as np

from circle_tf.evaluation import templates
from trainers.datasets import base
from trainers.datasets.faces import ijbc
from trainers.evaluation import face_images

__all__ = ["verify"]

_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def verify(model, path):
    """TAR at FAR of a model on the pairs of templates of IJB-C.

    Faces are aligned by their five points, embedded with their mirror images, averaged within a
    medium and added over media.

    Args:
        model: keras.Model from pixels `[B, H, H, C]` to embeddings `[B, D]`.
        path: the folder with `meta` and `loose_crop`.

    Returns:
        dict: `tar_at_far_{far}` of 1e-6 to 1e-1, and the counts `templates` and `pairs`.

    Raises:
        base.DataError: it is not there, a list is wrong, a picture cannot be read, or the model
            takes no square pictures.
    """
    height, width = model.input_shape[1:3]
    if height != width:
        raise base.DataError(
            f"{path}: faces are aligned to squares, and the model takes {height} x {width} pixels. "
            "Train one with dataset.image_width 0."
        )
    protocol = ijbc.read(path)
    files = [os.path.join(protocol.folder, name) for name in protocol.files]
    rows = face_images.embed(
        model,
        face_images.Pictures(files, points=protocol.points),
        title="IJB-C",
        check=f"python -m trainers.data check --dataset=ijbc --path={path}",
    )
    ids, found = templates.template_embeddings(rows, protocol.templates, protocol.media)
    pairs = (protocol.first, protocol.second, protocol.same)
    if np.unique(protocol.same).size < 2:
        raise base.DataError(f"{path}: expected pairs of one person and of two; found one kind.")
    report = templates.template_report(ids, found, *pairs, fars=_FARS)
    return {**report, "templates": len(ids), "pairs": len(protocol.same)}
