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
from export.publishing import thumbnails as thumbnails_of

__all__ = ["embed", "from_folder", "from_held_out", "load"]

HELD_OUT = "held_out"
_BATCH = 64


def load(source, *, run, model, image_shape, skip_unreadable=False, thumbnails=0):
    """The gallery that a flag names.

    Args:
        source: `held_out`, a gallery file (`.npz`), or a folder of images.
        run: runs.Run.
        model: the run's model.
        image_shape: `(H, W, C)`.
        skip_unreadable: whether to leave out files of a folder that cannot be read, and not to
            refuse it.
        thumbnails: int, the longer side of a small picture of each image in pixels; 0 for none.

    Returns:
        circle_tf.serving.gallery.Gallery; a file's has thumbnails if it was made with them.

    Raises:
        console.ExportError: there is nothing to make a gallery of, or another model made it.
    """
    if source == HELD_OUT:
        return from_held_out(run, model=model, thumbnails=thumbnails)
    if os.path.isdir(source):
        return from_folder(
            source,
            model=model,
            image_shape=image_shape,
            skip_unreadable=skip_unreadable,
            thumbnails=thumbnails,
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
    small = thumbnails_of.at_most(gallery.thumbnails, thumbnails)
    return Gallery(gallery.embeddings, gallery.ids, gallery.classes, gallery.source, small)


def from_held_out(run, *, model, thumbnails=0):
    """The gallery of a run's held-out examples.

    Args:
        run: runs.Run.
        model: the run's model.
        thumbnails: see `load`.

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
    small = None
    if thumbnails and found.images.shape[-1] in (1, 3):
        encode = tf.function(lambda image: thumbnails_of.encoded(image, thumbnails))
        small = [encode(tf.constant(image)).numpy() for image in found.images]
    return _gallery(model, embed(model, found.images), ids, found.names, small)


def from_folder(folder, *, model, image_shape, skip_unreadable=False, thumbnails=0):
    """The gallery of the images in a folder and its sub-folders.

    Files that cannot be read are told on stderr, each in a line.

    Args:
        folder: its path.
        model: `keras.Model`.
        image_shape: `(H, W, C)`.
        skip_unreadable: whether to leave these files out, and not to refuse the folder.
        thumbnails: see `load`.

    Returns:
        circle_tf.serving.gallery.Gallery; ids are paths within the folder, classes the sub-folders,
        if every image is in one.

    Raises:
        console.ExportError: there are no images, or some cannot be read.
    """
    paths = np.array(image_files.inside(folder), object)
    files = [os.fsencode(os.path.join(folder, path)) for path in paths]
    embeddings, rows, small = _embed_files(model, files, image_shape, thumbnails)
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
    return _gallery(
        model, embeddings, kept, classes if all(classes) else None, small if thumbnails else None
    )


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


def _embed_files(model, files, image_shape, side):
    """`(embeddings [R, D], rows [R], thumbnails)` of the files that can be read."""
    resize = decoding.image_resizer(image_shape)

    def read(row, file):
        image = decoding.decode(tf.io.read_file(file))
        return row, resize(image), thumbnails_of.encoded(image, side) if side else ""

    found = tf.data.Dataset.from_tensor_slices(files).enumerate()
    found = found.map(read, tf.data.AUTOTUNE, deterministic=True)
    found = found.ignore_errors().batch(_BATCH).prefetch(2)
    call = _embedder(model, image_shape)
    embeddings, rows = [np.zeros([0, 0], np.float32)], [np.zeros([0], np.int64)]
    small, size = [], 0
    with tqdm.tqdm(total=len(files), desc="embedding", unit=" images", disable=None) as bar:
        for batch_rows, batch, batch_small in found:
            embeddings.append(call(batch).numpy())
            rows.append(batch_rows.numpy())
            full = size > thumbnails_of.MOST_BYTES  # The rest is cut off exactly at the end.
            small.extend([b""] * len(batch) if full else batch_small.numpy())
            size += sum(map(len, batch_small.numpy()))
            bar.update(int(rows[-1][-1]) + 1 - bar.n)
    return np.concatenate(embeddings[1:] or embeddings), np.concatenate(rows), small


def _fault(file):
    """Why a file cannot be read, in a line."""
    try:
        decoding.decode(tf.io.read_file(file))
    except tf.errors.OpError as error:
        return errors.reason(error)
    except UnicodeDecodeError:  # TensorFlow's message holds bytes of the file.
        return "its bytes are not those of an image"
    return "it could not be read a moment ago"


def _gallery(model, embeddings, ids, classes, thumbnails):
    if thumbnails is not None:
        thumbnails = thumbnails_of.within(thumbnails)
    source = embedder_fingerprint(model)
    return Gallery(embeddings, np.array(ids, str), classes, source, thumbnails)
