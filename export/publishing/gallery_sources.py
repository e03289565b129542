"""Galleries to publish: from a gallery file, a folder of images, or a run's held-out examples."""

import os

import numpy as np
import tensorflow as tf

from circle_tf.data import decoding
from circle_tf.serving.gallery import Gallery, embedder_fingerprint
from export.cli import console, image_files

__all__ = ["embed", "from_folder", "from_held_out", "load"]

HELD_OUT = "held_out"
_BATCH = 64


def load(source, *, run, model, image_shape):
    """The gallery that a flag names.

    Args:
        source: `held_out`, a gallery file (`.npz`), or a folder of images.
        run: runs.Run.
        model: the run's model.
        image_shape: `(H, W, C)`.

    Returns:
        circle_tf.serving.gallery.Gallery.

    Raises:
        console.ExportError: there is nothing to make a gallery of, or another model made it.
    """
    if source == HELD_OUT:
        return from_held_out(run, model=model)
    if os.path.isdir(source):
        return from_folder(source, model=model, image_shape=image_shape)
    try:
        gallery = Gallery.load(source)
    except (ValueError, OSError) as error:
        raise console.ExportError(
            f"--gallery={source}: {error} Give a gallery file, a folder of images, or {HELD_OUT}."
        ) from error
    own = embedder_fingerprint(model)
    if gallery.source != own:
        raise console.ExportError(
            f"The gallery {source} was embedded by another model (fingerprint "
            f"{gallery.source or 'unknown'}; this run's model has {own}): distances to it mean "
            f"nothing. Embed it again: python -m export.gallery --workdir={run.workdir}"
        )
    return gallery


def from_held_out(run, *, model):
    """The gallery of a run's held-out examples.

    Args:
        run: runs.Run.
        model: the run's model.

    Returns:
        circle_tf.serving.gallery.Gallery; ids are `CLASS/NUMBER`.

    Raises:
        console.ExportError: the run kept none.
    """
    found = run.held_out()
    if found is None:
        raise console.ExportError(
            f"The run in {run.workdir!r} kept no held-out examples (held_out.npz). Give a folder "
            "of images, or train it again."
        )
    ids = [f"{name}/{number}" for number, name in enumerate(found.names)]
    return _gallery(model, embed(model, found.images), ids, found.names)


def from_folder(folder, *, model, image_shape):
    """The gallery of the images in a folder and its sub-folders.

    Args:
        folder: its path.
        model: `keras.Model`.
        image_shape: `(H, W, C)`.

    Returns:
        circle_tf.serving.gallery.Gallery; ids are paths within the folder, classes the sub-folders,
        if every image is in one.

    Raises:
        console.ExportError: there are no images, or one cannot be decoded.
    """
    paths = image_files.inside(folder)
    decode = decoding.image_decoder(image_shape)
    batches = [paths[start : start + _BATCH] for start in range(0, len(paths), _BATCH)]
    rows = [embed(model, _decoded(folder, batch, decode)) for batch in batches]
    classes = [path.split(os.sep)[0] if os.sep in path else "" for path in paths]
    return _gallery(model, np.concatenate(rows), paths, classes if all(classes) else None)


def embed(model, images):
    """Embeddings of images.

    Args:
        model: `keras.Model`.
        images: `[N, H, W, C]`.

    Returns:
        `[N, D]` float32.
    """
    call = tf.function(lambda batch: model(batch, training=False), reduce_retracing=True)
    batches = [images[start : start + _BATCH] for start in range(0, len(images), _BATCH)]
    answers = [call(tf.constant(batch, tf.float32)) for batch in batches]
    return np.concatenate([tf.cast(tf.nest.flatten(a)[0], tf.float32).numpy() for a in answers])


def _decoded(folder, paths, decode):
    images = []
    for path in paths:
        try:
            images.append(decode(tf.io.read_file(os.path.join(folder, path))).numpy())
        except tf.errors.InvalidArgumentError as error:
            raise console.ExportError(
                f"{os.path.join(folder, path)} is not a whole image. Remove or repair it."
            ) from error
    return np.stack(images)


def _gallery(model, embeddings, ids, classes):
    return Gallery(embeddings, np.array(ids, str), classes, embedder_fingerprint(model))
