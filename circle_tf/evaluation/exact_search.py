"""Top-k of exact products: unit rows on a grid, so that no order of addition changes a bit.

Floating-point sums depend on the order of addition: a matmul may give two copies of one embedding
similarities that differ in the last bit, depending on the column or the chunk they fall into, and a
metric then moves with the chunk size. So embeddings are put on a grid of whole multiples of 2^-26
and multiplied in float64. Any partial sum of products of two such unit rows is a whole multiple of
2^-52 below 2, thus exact: similarities are the same on every device, in every chunk, in any order
of addition.

Where few neighbours of a large gallery are wanted, a float32 product tells which rows can be among
them (shortlists.py), and only those are multiplied in float64: the result is the same.
"""

import numpy as np
import tensorflow as tf

from circle_tf.evaluation import shortlists
from circle_tf.ops import numerics

__all__ = ["ExactSearch", "on_grid"]

_GRID = 2.0**26
_CACHE_BYTES = 2**20  # Of rows that are put on the grid at a time.
# Candidates are multiplied in blocks of this size, which fit the cache.
_BLOCK_BYTES = 2**22


def on_grid(embeddings, *, name, rows=None):
    """Unit rows, rounded to whole multiples of 2^-26.

    Args:
        embeddings: `[N, D]` array of any real dtype and scale.
        name: str, what to call them in errors.
        rows: `[N]` int, the numbers of the rows in errors; None for 0 to N - 1.

    Returns:
        `[N, D]` float64, of norm 1 but for the rounding; a row of zeros stays zero.

    Raises:
        ValueError: NaN or inf in a row.

    Example:
        >>> on_grid(np.array([[3, 4]]), name="gallery").round(3).tolist()
        [[0.6, 0.8]]
    """
    grid = np.empty(embeddings.shape, np.float64)
    size = max(1, _CACHE_BYTES // grid[:1].nbytes)
    for start in range(0, len(embeddings), size):
        block = grid[start : start + size]
        block[:] = embeddings[start : start + size]
        largest = np.abs(block).max(axis=1, keepdims=True)
        bad = np.flatnonzero(~np.isfinite(largest))
        if bad.size:
            row = start + bad[0] if rows is None else rows[start + bad[0]]
            raise ValueError(f"{name} must be finite; row {row} holds NaN or inf.")
        # A row's numbers depend on that row alone, whatever stands beside it.
        block /= np.where(largest < numerics.ZERO_ROW, np.inf, largest)
        square = np.einsum("nd,nd->n", block, block)[:, None]
        block *= _GRID / np.sqrt(np.where(square > 0, square, 1.0))
        np.rint(block, out=block)
        block /= _GRID
    return grid


class ExactSearch:
    """Finds the nearest rows of a gallery; equal similarities in the order of rows.

    Args:
        keys: `[N, D]` float64, as of `on_grid`.

    Example:
        >>> keys = on_grid(np.array([[2.0, 0.0], [1.0, 1.0], [3.0, 0.0]]), name="gallery")
        >>> indices, cosines = ExactSearch(keys)(keys[:1], 2, left_out=[0])
        >>> indices.tolist(), cosines.round(3).tolist()
        ([[2, 1]], [[1.0, 0.707]])
    """

    def __init__(self, keys):
        self._keys = _on_device(keys)
        self._shortlists = None
        on_host = isinstance(self._keys, np.ndarray)
        self._deepest = shortlists.deepest(len(keys)) if on_host else 0

    def __call__(self, anchors, depth, *, left_out=None):
        """Finds the nearest `depth` of each query.

        Args:
            anchors: `[c, D]` float64, as of `on_grid`.
            depth: int, at least 1.
            left_out: `[c]` int, a gallery row that does not count for each query; None: all do.

        Returns:
            `(indices, similarities)`: `[c, depth]` int32, `[c, depth]` float64 from -1 to 1.
        """
        if depth <= self._deepest:
            indices, products = self._by_shortlist(anchors, depth, left_out)
        else:
            indices, products = self._among_all(anchors, depth, left_out)
        return indices, np.clip(products, -1.0, 1.0)

    def _by_shortlist(self, anchors, depth, left_out):
        if self._shortlists is None:
            self._shortlists = shortlists.Shortlists(self._keys)
        candidates, complete = self._shortlists(anchors, depth, left_out=left_out)
        indices, products = _nearest_of(candidates, anchors, self._keys, depth)
        short = np.flatnonzero(~complete)
        if short.size:
            left_out = None if left_out is None else np.asarray(left_out)[short]
            indices[short], products[short] = self._among_all(anchors[short], depth, left_out)
        if 2 * short.size > len(anchors):
            self._deepest = 0  # Ties everywhere: lists are no gain here.
        return indices, products

    def _among_all(self, anchors, depth, left_out):
        if left_out is None:
            return _search(anchors, self._keys, depth)
        return _without(left_out, *_search(anchors, self._keys, depth + 1))


def _nearest_of(candidates, anchors, keys, depth):
    """`(indices, products)`, `[c, depth]` each: the nearest among some rows of each query."""
    products = np.empty(candidates.shape, np.float64)
    size = max(1, _BLOCK_BYTES // (8 * candidates.shape[1] * keys.shape[1]))
    for start in range(0, len(anchors), size):
        part = slice(start, start + size)
        products[part] = np.matmul(keys[candidates[part]], anchors[part, :, None])[:, :, 0]
    # Candidates stand in the order of rows, which a stable sort keeps where products are equal.
    order = np.argsort(-products, axis=1, kind="stable")[:, :depth]
    indices = np.take_along_axis(candidates, order, axis=1).astype(np.int32)
    return indices, np.take_along_axis(products, order, axis=1)


def _on_device(keys):
    """The gallery where it is multiplied: on a GPU if there is one, else left to NumPy's BLAS.

    Products are exact on either. On a CPU, TensorFlow's float64 matmul takes twice as long.
    """
    return tf.constant(keys) if tf.config.list_logical_devices("GPU") else keys


def _search(anchors, keys, depth):
    """`(indices, products)`, `[c, depth]` each, largest product first."""
    if isinstance(keys, np.ndarray):
        products, indices = tf.math.top_k(anchors @ keys.T, depth)
    else:
        products, indices = _search_on_device(anchors, keys, tf.constant(depth))
    return indices.numpy(), products.numpy()


@tf.function(reduce_retracing=True)
def _search_on_device(anchors, keys, depth):
    # Of equal values, top_k lists the lower index first.
    return tf.math.top_k(tf.matmul(anchors, keys, transpose_b=True), depth)


def _without(rows, indices, products):
    """Drops each query from its own list, or, where copies of it fill the list, the last entry."""
    others = indices != np.asarray(rows)[:, None]
    others[:, -1] &= ~others.all(axis=1)
    shape = (len(rows), indices.shape[1] - 1)
    return indices[others].reshape(shape), products[others].reshape(shape)
