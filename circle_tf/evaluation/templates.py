"""Templates: several images of a person as one embedding, the protocol of IJB-B and IJB-C."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from circle_tf.evaluation import exact_search
from circle_tf.evaluation.neighbours import as_rows
from circle_tf.evaluation.verification import pair_similarities, tar_at_far
from circle_tf.ops import pairs
from circle_tf.utils import checks

__all__ = ["template_embeddings", "template_report"]

_CHUNK = 1 << 16  # pairs scored at a time


def template_embeddings(
    embeddings: ArrayLike, templates: ArrayLike, media: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of templates: the mean within each medium, then the sum over media, normalised.

    The frames of a video are one medium, so that a long video does not outvote a photograph.

    Args:
        embeddings: `[N, D]` of images, of any real dtype; they are normalised first.
        templates: `[N]` integer ids: to which template an image belongs. An image that is in
            several templates is given as often.
        media: `[N]` integer ids of media, within a template or overall.

    Returns:
        `(ids, rows)`: `[T]` int64 ids, rising, and `[T, D]` float32 unit rows.

    Raises:
        ValueError: shapes or lengths that do not fit, NaN or inf in a row.

    References:
        Maze et al., "IARPA Janus Benchmark - C", ICB 2018.

    Example:
        >>> rows = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]
        >>> ids, found = template_embeddings(rows, [5, 5, 5], [1, 2, 2])
        >>> ids.tolist(), found.tolist()
        ([5], [[0.707..., 0.707...]])
    """
    rows = as_rows(embeddings, name="embeddings")
    columns = [
        pairs.ids_of_rows(templates, rows, name="templates"),
        pairs.ids_of_rows(media, rows, name="media"),
    ]
    unit = exact_search.on_grid(rows, name="embeddings")
    keys, places = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    of_media = _sums(unit, places.reshape(-1), len(keys))
    of_media /= np.bincount(places.reshape(-1))[:, None]
    ids, places = np.unique(keys[:, 0], return_inverse=True)
    sums = _sums(of_media, places, len(ids))
    return ids, exact_search.on_grid(sums, name="templates").astype(np.float32)


def template_report(
    ids: ArrayLike,
    rows: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    same: ArrayLike,
    *,
    fars: float | Iterable[float] = (1e-5, 1e-4, 1e-3),
    rule: Literal["at_most", "nearest"] = "at_most",
) -> dict[str, float]:
    """TAR at FAR over pairs of templates.

    Args:
        ids: `[T]` rising ids, as of `template_embeddings`.
        rows: `[T, D]` embeddings of the templates.
        first: `[P]` ids of templates.
        second: `[P]` ids of templates.
        same: `[P]` bool, whether a pair is of one identity.
        fars: floats 0 to 1, or one.
        rule: see `circle_tf.evaluation.verification.tar_at_far`.

    Returns:
        dict of floats 0 to 1: `tar_at_far_{far}` for each.

    Raises:
        ValueError: an id without a template, and as `tar_at_far`.

    Example:
        >>> report = template_report([1, 2, 3], np.eye(3) + 0.1, [1, 1], [1, 2], [True, False])
        >>> report["tar_at_far_0.001"]
        1.0
    """
    ids, rows = np.asarray(ids), as_rows(rows, name="rows")
    sides = [_places(ids, values, name) for name, values in (("first", first), ("second", second))]
    scores = np.concatenate(
        [
            pair_similarities(*(rows[side[start : start + _CHUNK]] for side in sides))
            for start in range(0, len(sides[0]), _CHUNK)
        ]
    )
    rates = checks.several(fars)
    return {f"tar_at_far_{far:g}": tar_at_far(scores, same, far, rule=rule) for far in rates}


def _places(ids, wanted, name):
    wanted = pairs.to_ids(wanted).numpy()
    places = np.minimum(np.searchsorted(ids, wanted), len(ids) - 1)
    absent = np.flatnonzero(ids[places] != wanted)
    if absent.size:
        raise ValueError(
            f"{name}[{absent[0]}] is {wanted[absent[0]]}, of which there is no template "
            f"({absent.size} such)."
        )
    return places


def _sums(rows, places, count):
    sums = np.zeros((count, rows.shape[1]))
    np.add.at(sums, places, rows)
    return sums
