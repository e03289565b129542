"""What a frozen backbone gives for images, computed once and kept on disk as TFRecord files."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from circle_tf import compat
from circle_tf.data import pipeline
from circle_tf.fine_tuning.digests import backbone_digest, image_digests
from circle_tf.utils import errors, files

__all__ = ["cache_features"]

_PIECE = 256  # images to a file: what a kill costs at most
_PARSED = 256  # records at a time
_SCHEMA = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "features")}


def cache_features(
    backbone: keras.Model,
    images: Any,
    folder: str | os.PathLike[str],
    *,
    decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
    keys: Sequence[str] | None = None,
    batch_size: int = 64,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> np.ndarray:
    """The features of images, those that are in the cache already read from there.

    To train a head on a frozen backbone each image needs to pass it once, not once an epoch. The
    head then trains on `(features, ids)`, and the model is `keras.Model(backbone.input,
    head(backbone.output))`. That is the training of the whole only if the images are always the
    same (no augmentation) and no layer of the backbone trains or draws at random: features are
    those of inference, with BatchNormalization by its moving statistics and without dropout.

    A cache holds features of any number of backbones and images, each known by its content: of
    other weights, another preprocessing (it is in the backbone) or a changed image they are
    computed anew, and those alone. It is written file by file, each whole or not at all: an
    interrupted computation goes on. Remove the folder to have the room back.

    Args:
        backbone: keras.Model with one output, from images `[B, ...]` to features `[B, ...]`.
        images: as the `examples` of `pk_dataset`: images `[N, ...]`, N paths, or
            `circle_tf.records.RecordFiles` of N records.
        folder: of the cache; made if need be. Several processes may use it at once.
        decode: as of `pk_dataset`, for paths and records. What changes its result without changing
            the file (another crop) belongs into `keys`.
        keys: a text for each image `[N]` that changes when the image does. Default: pixels of
            images in memory; path, size and time of files; bytes of records.
        batch_size: images that pass at a time.
        progress: wraps the list of what is to be computed, some hundred images each, as `tqdm.tqdm`
            does.

    Returns:
        Features `[N, ...]`, in the backbone's output dtype and in memory.

    Raises:
        ValueError: a backbone with several inputs or outputs, without a fixed shape of features or
            without a configuration; not one key for each image.
        OSError: the disk is full, or nothing may be written there.

    Warns:
        UserWarning: a damaged file of the cache, which is computed anew.

    Example:
        >>> import tempfile
        >>> backbone = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        >>> images, folder = np.ones([3, 4], np.float32), tempfile.mkdtemp()
        >>> features = cache_features(backbone, images, folder)
        >>> features.shape, bool(np.allclose(features, backbone(images)))
        ((3, 2), True)

    References:
        The records are read as any TFRecord: `tf.train.Example` with `image` (a digest) and
        `features` (bytes of an array, its shape and dtype in the folder's features.json).
    """
    compat.require_keras_3("cache_features")
    examples = pipeline.as_examples(images, decode=decode)
    marks = image_digests(examples, keys)
    shape, dtype = _form(backbone)
    digest = backbone_digest(backbone)
    folder = os.path.join(os.fspath(folder), digest[:32])
    found = np.empty([len(examples), *shape], dtype)
    _, first, places = np.unique(marks, return_index=True, return_inverse=True)
    rows = {marks[row]: row for row in first}
    known = set()
    with files.disk_errors(folder):
        _write_description(folder, backbone, shape=shape, dtype=dtype)
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), "features-*.tfrecord"))):
            known |= _read(path, into=found, rows=rows)
        missing = np.array(sorted(row for mark, row in rows.items() if mark not in known), int)
        load = _loader(backbone, examples, decode, batch_size=min(batch_size, _PIECE))
        pieces = np.split(missing, range(_PIECE, len(missing), _PIECE)) if len(missing) else []
        for piece in progress(pieces):
            found[piece] = load(piece)
            _write(folder, [marks[row] for row in piece], found[piece])
    # Of images that are there more than once each has its row.
    again = np.setdiff1d(np.arange(len(examples)), first)
    found[again] = found[first[places[again]]]
    return found


def _form(backbone):
    inputs, outputs = getattr(backbone, "inputs", None) or [], getattr(backbone, "outputs", [])
    if len(inputs) != 1 or len(outputs) != 1 or None in outputs[0].shape[1:]:
        raise ValueError(
            "cache_features wants a functional backbone with one input and one output of a fixed "
            f"shape; {backbone.name!r} has {len(inputs)} inputs, and outputs "
            f"{[tuple(output.shape) for output in outputs]}."
        )
    return tuple(outputs[0].shape[1:]), tf.as_dtype(outputs[0].dtype).as_numpy_dtype


def _loader(backbone, examples, decode, *, batch_size):
    """Function of rows `[n]` to their features; the last batch is filled up, for one trace."""
    spec = backbone.inputs[0]
    kind = tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)
    embed = tf.function(lambda batch: backbone(batch, training=False), input_signature=[kind])

    def load(rows):
        filled = np.resize(rows, -(-len(rows) // batch_size) * batch_size)
        batches = tf.data.Dataset.from_tensor_slices(filled.astype(np.int64)).batch(batch_size)
        batches = batches.map(lambda part: pipeline.gather(examples, part))
        if decode is not None:
            one = pipeline.decoder(examples, decode=decode)
            batches = batches.unbatch().map(one, num_parallel_calls=tf.data.AUTOTUNE)
            batches = batches.batch(batch_size)
        batches = pipeline.on_own_threads(batches.prefetch(2))
        outputs = [embed(tf.cast(batch, spec.dtype)).numpy() for batch in batches]
        return np.concatenate(outputs)[: len(rows)]

    return load


def _write_description(folder, backbone, *, shape, dtype):
    path = os.path.join(folder, "features.json")
    if os.path.exists(path):
        return
    content = {"backbone": backbone.name, "shape": list(shape), "dtype": np.dtype(dtype).name}
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        json.dump(content, stream)


def _write(folder, marks, features):
    name = hashlib.blake2b("".join(marks).encode(), digest_size=16).hexdigest()
    path = os.path.join(folder, f"features-{name}.tfrecord")
    with files.replacing(path) as partial, tf.io.TFRecordWriter(partial) as writer:
        for mark, row in zip(marks, features, strict=True):
            values = {"image": mark.encode(), "features": row.tobytes()}
            feature = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                for name, value in values.items()
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())


def _read(path, *, into, rows):
    """Copies a file's features into their rows; returns which images they are of."""
    records = tf.data.TFRecordDataset(path).batch(_PARSED)
    records = records.map(lambda data: tf.io.parse_example(data, _SCHEMA))
    known = set()
    try:
        for batch in records.as_numpy_iterator():
            for mark, content in zip(batch["image"], batch["features"], strict=True):
                row = rows.get(mark.decode())
                if row is not None:
                    into[row] = np.frombuffer(content, into.dtype).reshape(into.shape[1:])
                    known.add(mark.decode())
    except (tf.errors.OpError, ValueError) as error:
        warnings.warn(
            f"{path} is damaged ({errors.reason(error)}): its features are computed anew.",
            stacklevel=3,
        )
        os.remove(path)
    return known
