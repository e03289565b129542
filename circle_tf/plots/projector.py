"""Files for TensorBoard's embedding projector."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.plots import pixels
from circle_tf.utils import files

__all__ = ["write_projector"]

# Browsers draw textures up to this size everywhere.
_LARGEST_SPRITE = 8192
_BREAKS = str.maketrans("\t\r\n", "   ")


def write_projector(
    logdir: str | os.PathLike[str],
    embeddings: ArrayLike,
    *,
    images: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes embeddings, their labels and a sprite of their images for the projector.

    `tensorboard --logdir=...` shows them under "Projector". The files are `embeddings.tsv`,
    `metadata.tsv`, `sprite.png` and, last, `projector_config.pbtxt`, without which the others are
    not looked at; existing ones are replaced.

    Args:
        logdir: directory, made if need be.
        embeddings: `[N, D]`. The projector runs in the browser: a few thousand are plenty.
        images: `[N, H, W, C]` pixels 0 to 255; None: points only. Made smaller where the sprite
            would exceed 8192 pixels a side.
        labels: `[N]` integer ids; None: points are named by their row.
        class_names: sequence of str, the name of label i at i; None: labels are shown as numbers.

    Raises:
        ImportError: tensorboard is not installed.
        ValueError: lengths that differ.

    Example:
        >>> import tempfile
        >>> logdir = tempfile.mkdtemp()
        >>> write_projector(logdir, np.eye(3), labels=[0, 0, 1], class_names=["a", "b"])
        >>> sorted(os.listdir(logdir))
        ['embeddings.tsv', 'metadata.tsv', 'projector_config.pbtxt']
    """
    config = _import_projector().ProjectorConfig()
    embeddings = np.asarray(embeddings)
    _check_lengths(embeddings, images=images, labels=labels)
    entry = config.embeddings.add(tensor_name="embeddings", tensor_path="embeddings.tsv")
    rows = ["\t".join(f"{value:.6g}" for value in row) for row in embeddings]
    _write_text(os.path.join(logdir, entry.tensor_path), rows)
    if labels is not None:
        entry.metadata_path = "metadata.tsv"
        _write_text(os.path.join(logdir, entry.metadata_path), _metadata(labels, class_names))
    if images is not None:
        thumbnails = _thumbnails(images)
        entry.sprite.image_path = "sprite.png"
        entry.sprite.single_image_dim.extend([thumbnails.shape[2], thumbnails.shape[1]])
        with files.replacing(os.path.join(logdir, entry.sprite.image_path)) as partial:
            tf.io.write_file(partial, tf.io.encode_png(pixels.tile(thumbnails)))
    _write_text(os.path.join(logdir, "projector_config.pbtxt"), [str(config).rstrip()])


def _metadata(labels, class_names):
    labels = np.asarray(labels).reshape(-1)
    names = labels if class_names is None else [class_names[label] for label in labels]
    lines = [f"{str(name).translate(_BREAKS)}\t{row}" for row, name in enumerate(names)]
    return ["class\trow", *lines]


def _thumbnails(images):
    """`[N, h, w, 3]` uint8, small enough for a sprite of all."""
    images = pixels.as_rgb(images)
    columns = int(np.ceil(np.sqrt(len(images))))
    height, width = images.shape[1:3]
    scale = min(1.0, _LARGEST_SPRITE / (columns * max(height, width)))
    if scale == 1.0:
        return images
    size = [max(1, int(height * scale)), max(1, int(width * scale))]
    parts = [
        tf.image.resize(images[start : start + 256], size, "area").numpy()
        for start in range(0, len(images), 256)
    ]
    return pixels.as_rgb(np.rint(np.concatenate(parts)).astype(np.uint8))


def _write_text(path, lines):
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _check_lengths(embeddings, **others):
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(f"embeddings must have shape [N, D]; found {list(embeddings.shape)}.")
    for name, values in others.items():
        if values is not None and len(values) != len(embeddings):
            raise ValueError(
                f"{name} must be as many as the embeddings, {len(embeddings)}; found {len(values)}."
            )


def _import_projector():
    try:
        return importlib.import_module("tensorboard.plugins.projector")
    except ImportError as error:
        raise ImportError(
            f"The projector's files need tensorboard, which cannot be imported ({error}). "
            "Install it with: pip install 'circle-tf[train]'"
        ) from error
