"""Galleries to publish: from a gallery file, a folder of images, or a run's held-out examples."""

import os
import sys

import numpy as np
import tensorflow as tf
import tqdm

from circle_tf.data import decoding
from circle_tf.serving.gallery import Gallery, embedder_fingerprint
from circle_tf.utils import command_lines, errors
from export.cli import console, image_files

__all__ = ["embed", "from_folder", "from_held_out", "load"]

HELD_OUT = "held_out"
_BATCH = 64


def load(source, *, run, model, image_shape, skip_unreadable=False):
    """The gallery that a flag names.

    Args:
        source: `held_out`, a gallery file (`.npz`), or a folder of images.
        run: runs.Run.
        model: the run's model.
        image_shape: `(H, W, C)`.
        skip_unreadable: whether to leave out files of a folder that cannot be read, and not to
            refuse it.

    Returns:
        circle_tf.serving.gallery.Gallery.

    Raises:
        console.ExportError: there is nothing to make a gallery of, or another model made it.
    """
    if source == HELD_OUT:
        return from_held_out(run, model=model)
    if os.path.isdir(source):
        return from_folder(
            source, model=model, image_shape=image_shape, skip_unreadable=skip_unreadable
        )
    try:
        gallery = Gallery.load(source)
    except (ValueError, OSError) as error:
        raise console.ExportError(
            f"--gallery={source}: {error} Give a gallery file, a folder of images, or {HELD_OUT}."
        ) from error
    own = embedder_fingerprint(model)
    if gallery.source != own:
        options = f"--workdir={run.workdir}", "--images=FOLDER", f"--output={source}"
        again = command_lines.python_module("export.gallery", *options)
        raise console.ExportError(
            f"The gallery {source} was embedded by another model (fingerprint "
            f"{gallery.source or 'unknown'}; this run's model has {own}): distances to it mean "
            f"nothing. Embed it again: {again}"
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


def from_folder(folder, *, model, image_shape, skip_unreadable=False):
    """The gallery of the images in a folder and its sub-folders.

    Files that cannot be read are told on stderr, each in a line.

    Args:
        folder: its path.
        model: `keras.Model`.
        image_shape: `(H, W, C)`.
        skip_unreadable: whether to leave these files out, and not to refuse the folder.

    Returns:
        circle_tf.serving.gallery.Gallery; ids are paths within the folder, classes the sub-folders,
        if every image is in one.

    Raises:
        console.ExportError: there are no images, or some cannot be read.
    """
    paths = np.array(image_files.inside(folder), object)
    files = [os.fsencode(os.path.join(folder, path)) for path in paths]
    embeddings, rows = _embed_files(model, files, decoding.image_decoder(image_shape))
    unreadable = np.setdiff1d(np.arange(len(paths)), rows)
    for row in unreadable:
        print(f"unreadable: {paths[row]}: {_fault(files[row])}", file=sys.stderr)
    if not len(rows):
        raise console.ExportError(f"{folder}: none of {len(paths)} images can be read.")
    if len(unreadable) and not skip_unreadable:
        raise console.ExportError(
            f"{folder}: {len(unreadable)} of {len(paths)} images cannot be read. Repair or remove "
            "them, or leave them out by --skip_unreadable."
        )
    kept = paths[rows].tolist()
    classes = [path.split(os.sep)[0] if os.sep in path else "" for path in kept]
    return _gallery(model, embeddings, kept, classes if all(classes) else None)


def embed(model, images):
    """Embeddings of images.

    Args:
        model: `keras.Model`.
        images: `[N, H, W, C]`.

    Returns:
        `[N, D]` float32.
    """
    call = _embedder(model, images.shape[1:])
    starts = range(0, len(images), _BATCH)
    return np.concatenate([call(images[start : start + _BATCH]).numpy() for start in starts])


def _embedder(model, image_shape):
    """The model as one graph, for batches of any size."""

    @tf.function(input_signature=[tf.TensorSpec([None, *image_shape], tf.float32)])
    def call(batch):
        return tf.cast(tf.nest.flatten(model(batch, training=False))[0], tf.float32)

    return lambda batch: call(tf.cast(batch, tf.float32))


def _embed_files(model, files, decode):
    """`(embeddings [R, D], rows [R])` of the files that can be read."""
    found = tf.data.Dataset.from_tensor_slices(files).enumerate()
    found = found.map(
        lambda row, file: (row, decode(tf.io.read_file(file))), tf.data.AUTOTUNE, deterministic=True
    )
    found = found.ignore_errors().batch(_BATCH).prefetch(2)
    call = _embedder(model, found.element_spec[1].shape[1:])
    embeddings, rows = [np.zeros([0, 0], np.float32)], [np.zeros([0], np.int64)]
    with tqdm.tqdm(total=len(files), desc="embedding", unit=" images", disable=None) as bar:
        for batch_rows, batch in found:
            embeddings.append(call(batch).numpy())
            rows.append(batch_rows.numpy())
            bar.update(int(rows[-1][-1]) + 1 - bar.n)
    return np.concatenate(embeddings[1:] or embeddings), np.concatenate(rows)


def _fault(file):
    """Why a file cannot be read, in a line."""
    try:
        decoding.decode(tf.io.read_file(file))
    except tf.errors.OpError as error:
        return errors.reason(error)
    except UnicodeDecodeError:  # TensorFlow's message holds bytes of the file.
        return "its bytes are not those of an image"
    return "it could not be read a moment ago"


def _gallery(model, embeddings, ids, classes):
    return Gallery(embeddings, np.array(ids, str), classes, embedder_fingerprint(model))
