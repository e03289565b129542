"""Galleries: embeddings to search in, with what each row is and which model made them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zipfile

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.utils import files

__all__ = ["Gallery", "check_gallery", "embedder_fingerprint", "unit_rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class Gallery:
    """Embeddings to search in.

    Args:
        embeddings: `[N, D]` real numbers, no zero rows; kept as float32 rows of length 1.
        ids: `[N]` strings or whole numbers, what a search answers with.
        classes: `[N]` names of classes (strings or whole numbers), for Classify; None without.
        source: `embedder_fingerprint` of the model that made the embeddings; None if unknown.
        thumbnails: list of N bytes, a small JPEG file of each image, empty where there is none;
            None for none. A model does not hold them.

    Raises:
        ValueError: shapes that do not fit, NaN or inf, a row of zeros, ids of another kind.

    Example:
        >>> gallery = Gallery(np.eye(3), ["a", "b", "c"])
        >>> len(gallery), gallery.dim, gallery.ids.tolist()
        (3, 3, ['a', 'b', 'c'])
    """

    embeddings: np.ndarray
    ids: np.ndarray
    classes: np.ndarray | None = None
    source: str | None = None
    thumbnails: list[bytes] | None = None

    # By hand, for what is given need not be of the types that are kept.
    def __init__(
        self,
        embeddings: ArrayLike,
        ids: ArrayLike,
        classes: ArrayLike | None = None,
        source: str | None = None,
        thumbnails: list[bytes] | None = None,
    ) -> None:
        rows = unit_rows(embeddings, name="A gallery's embeddings")
        ids = _column(ids, rows=len(rows), name="ids")
        if classes is not None:
            classes = _column(classes, rows=len(rows), name="classes").astype(str)
        if thumbnails is not None and len(thumbnails) != len(rows):
            raise ValueError(
                f"A gallery wants one thumbnail per embedding, {len(rows)}; found "
                f"{len(thumbnails)}."
            )
        found = {"classes": classes, "source": source, "thumbnails": thumbnails}
        self.__dict__.update(embeddings=rows, ids=ids, **found)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def dim(self) -> int:
        """D, numbers of an embedding."""
        return self.embeddings.shape[1]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the gallery whole or not at all.

        Args:
            path: the file, `.npz`.
        """
        content = {"embeddings": self.embeddings, "ids": self.ids, "source": self.source or ""}
        if self.classes is not None:
            content["classes"] = self.classes
        if self.thumbnails is not None:
            content["thumbnails"] = np.frombuffer(b"".join(self.thumbnails), np.uint8)
            content["thumbnail_ends"] = np.cumsum([len(one) for one in self.thumbnails])
        with files.replacing(path) as partial, open(partial, "wb") as stream:
            np.savez(stream, **content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Gallery:
        """Reads a gallery.

        Args:
            path: file that `save` wrote.

        Returns:
            Gallery.

        Raises:
            ValueError: it is not a gallery.
            FileNotFoundError: there is no such file.

        Example:
            >>> import os, tempfile
            >>> path = os.path.join(tempfile.mkdtemp(), "gallery.npz")
            >>> Gallery(np.eye(2), [10, 20], source="abc").save(path)
            >>> Gallery.load(path).source
            'abc'
        """
        try:
            with np.load(path) as stored:
                classes = stored["classes"] if "classes" in stored else None
                source = str(stored["source"]) or None
                thumbnails = _thumbnails(stored) if "thumbnails" in stored else None
                return cls(stored["embeddings"], stored["ids"], classes, source, thumbnails)
        except (KeyError, zipfile.BadZipFile, AttributeError, EOFError) as error:
            raise ValueError(f"{path} is not a gallery file ({error}).") from error


def embedder_fingerprint(model):
    """What tells an embedding model from others: equal for equal weights, in any precision.

    Args:
        model: built `keras.Model`.

    Returns:
        str of 32 hexadecimal digits.

    Example:
        >>> import keras
        >>> pixels = keras.Input((4,))
        >>> def model(value):
        ...     dense = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(value))
        ...     return keras.Model(pixels, dense(pixels))
        >>> found = [embedder_fingerprint(model(value)) for value in (1.0, 1.0, 1.5)]
        >>> found[0] == found[1], found[0] == found[2], len(found[0])
        (True, False, 32)
    """
    digest = hashlib.sha256(b"circle_tf")
    for weight in model.get_weights():
        digest.update(f"{weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight, np.float32).tobytes())
    return digest.hexdigest()[:32]


def check_gallery(gallery, model, *, k):
    """Checks that a gallery is a model's, and large enough.

    Args:
        gallery: Gallery.
        model: `keras.Model` with outputs `[B, D]`.
        k: int, neighbours that searches return.

    Raises:
        ValueError: another model's gallery, other dimensions, k out of range.
    """
    own = embedder_fingerprint(model)
    if gallery.source not in (None, own):
        raise ValueError(
            f"The gallery was embedded by another model (fingerprint {gallery.source}; this model "
            f"has {own}): distances to it mean nothing. Embed the gallery again with this model."
        )
    dim = model.output_shape[-1]
    if gallery.dim != dim:
        raise ValueError(f"The gallery has {gallery.dim} dimensions, the model {dim}.")
    if isinstance(k, bool) or not 1 <= k <= len(gallery):
        raise ValueError(f"k must be 1 to {len(gallery)}, the size of the gallery; found {k}.")


def unit_rows(embeddings, *, name):
    """Embeddings as rows of length 1.

    Args:
        embeddings: `[N, D]` real numbers.
        name: str, what to call them in errors.

    Returns:
        `[N, D]` float32.

    Raises:
        ValueError: another shape, NaN or inf, a row of zeros.

    Example:
        >>> unit_rows([[3, 4]], name="rows").tolist()
        [[0.600..., 0.800...]]
    """
    rows = np.asarray(embeddings, np.float64)
    if rows.ndim != 2 or not rows.size:
        raise ValueError(
            f"{name} must have shape [N, D], one row at least; found shape {list(rows.shape)}."
        )
    lengths = np.linalg.norm(rows, axis=1)
    bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
    if len(bad):
        raise ValueError(
            f"Row {bad[0]} of {name} has length {lengths[bad[0]]}: rows must be finite and not "
            f"zero ({len(bad)} are not)."
        )
    return (rows / lengths[:, None]).astype(np.float32)


def _thumbnails(stored):
    content, ends = stored["thumbnails"].tobytes(), stored["thumbnail_ends"].tolist()
    return [content[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _column(values, *, rows, name):
    values = np.asarray(values)
    if values.shape != (rows,):
        raise ValueError(
            f"A gallery wants one of {name} per embedding, shape [{rows}]; found shape "
            f"{list(values.shape)}."
        )
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "S":
        return np.char.decode(values, "utf-8")
    if values.dtype.kind == "O" and all(isinstance(value, str) for value in values):
        return values.astype(str)
    if values.dtype.kind != "U":
        raise ValueError(f"{name} must be strings or whole numbers; found {values.dtype}.")
    return values
