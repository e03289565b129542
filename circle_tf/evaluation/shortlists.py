"""Which gallery rows can be among the nearest, from one float32 product with a proven bound.

A float32 product of unit rows is off by at most (D + 4) 2^-24, in whatever order a BLAS adds
(Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1). So whatever is truly among
the nearest k has a float32 product no further than twice that below the k-th largest: some few rows
of the gallery, which can then be told apart exactly. Where more rows than that are so close, as
among copies, the list says that it is incomplete.

To find the largest of a row of products at the speed of memory, its columns are put in groups of 32
and the groups with the largest maxima are looked into.
"""

import numpy as np

__all__ = ["Shortlists", "deepest"]

_GROUP = 32
_ROUNDING = 2.0**-24


def deepest(rows):
    """How many neighbours can be asked for with a gain over looking at all rows.

    Args:
        rows: int, gallery rows.

    Returns:
        int, 0 where shortlists are no gain at all.

    Example:
        >>> deepest(60_000), deepest(100)
        (468, 0)
    """
    return rows // 128 if rows >= 1024 else 0


class Shortlists:
    """Makes lists of candidates from a gallery.

    The gallery's mean is subtracted: it adds the same to all products of a query, so the order
    stays, and the bound shrinks with the spread of the rows, which keeps lists short for embeddings
    that all point one way.

    Args:
        keys: `[N, D]` float64 gallery rows, of any scale.

    Example:
        >>> keys = np.random.default_rng(0).normal(size=(2000, 8))
        >>> candidates, complete = Shortlists(keys)(keys[:2], 3)
        >>> complete.tolist(), np.argmax(keys[0] @ keys.T) in candidates[0]
        ([True, True], True)
    """

    def __init__(self, keys):
        self._rows, dim = keys.shape
        padded = -(-self._rows // _GROUP) * _GROUP
        self._keys = np.zeros([padded, dim], np.float32)
        np.subtract(keys, keys.mean(axis=0), out=self._keys[: self._rows], casting="same_kind")
        self._products = np.empty([0, padded], np.float32)
        spread = _norms(self._keys).max()
        # Of a product, per unit of the query's norm; the last term is the rounding of the mean.
        self._error = (dim + 4) * _ROUNDING * spread + 2.0**-48 * (_norms(keys).max() + spread)

    def __call__(self, anchors, depth, *, left_out=None):
        """Lists the candidates for the nearest `depth`.

        Args:
            anchors: `[c, D]` float64 queries.
            depth: int, 1 to `deepest` of N.
            left_out: `[c]` int, a gallery row that does not count for each query, if any.

        Returns:
            `(candidates, complete)`: `[c, w]` gallery rows, distinct and in rising order, `w` a
            little more than `depth`; `[c]` bool, whether all that can be among the nearest are
            there.
        """
        products = self._multiply(anchors.astype(np.float32))
        products[:, self._rows :] = -np.inf
        if left_out is not None:
            products[np.arange(len(anchors)), left_out] = -np.inf
        width = depth + depth // 8 + 8
        groups, unseen = _largest_groups(products, width)
        members = _members(products, groups)
        best = np.argpartition(members, -width, axis=1)[:, -width:]
        values = np.take_along_axis(members, best, axis=1)
        values.partition([0, width - depth], axis=1)
        threshold = values[:, width - depth] - 2 * self._error * _norms(anchors)
        complete = np.maximum(values[:, 0], unseen) < threshold
        step = products.shape[1] // _GROUP
        columns = np.take_along_axis(groups, best % width, axis=1) + best // width * step
        columns.sort(axis=1)
        return columns, complete

    def _multiply(self, anchors):
        """`[c, N padded]`, in memory that is used again: fresh pages cost as much as the sums."""
        if len(self._products) < len(anchors):
            self._products = np.empty([len(anchors), len(self._keys)], np.float32)
        return np.matmul(anchors, self._keys.T, out=self._products[: len(anchors)])


def _largest_groups(products, width):
    """`([c, width], [c])`: groups of the largest maxima, and the smallest maximum among those.

    Columns whose numbers leave the same rest make a group: so the maxima are taken of whole rows.
    """
    maxima = products.reshape(len(products), _GROUP, -1).max(axis=1)
    groups = np.argpartition(maxima, -width, axis=1)[:, -width:]
    return groups, np.take_along_axis(maxima, groups, axis=1).min(axis=1)


def _members(products, groups):
    """`[c, 32 * width]`: products of the groups, member by member."""
    by_member = products.reshape(len(products), _GROUP, -1)
    return np.take_along_axis(by_member, groups[:, None, :], axis=2).reshape(len(products), -1)


def _norms(rows):
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))
