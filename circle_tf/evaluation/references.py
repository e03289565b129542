"""Labels of queries and gallery: which queries have anything to find."""

import numpy as np

from circle_tf.ops import pairs

__all__ = ["check_labels"]


def check_labels(queries, labels, *, gallery=None, gallery_labels=None):
    """Checks that labels fit their rows and that there is something to be found.

    Args:
        queries: `[Q, ...]` embeddings or images; only their number matters.
        labels: `[Q]` or `[Q, 1]` integer ids of any width.
        gallery: `[N, ...]` embeddings or images; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.

    Returns:
        `(query_ids, gallery_ids, references)`: `[Q]` and `[N]` int64, and `[Q]` int64, R of each
        query: how many references of its class it can find.

    Raises:
        ValueError: lengths that differ, a gallery without labels or labels without a gallery, no
            query with a reference.

    Example:
        >>> check_labels(np.zeros([3, 2]), [7, 7, 8])[2].tolist()
        [1, 1, 0]
    """
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels must be given together, or neither.")
    query_ids = pairs.ids_of_rows(labels, queries, name="labels")
    if gallery is None:
        gallery_ids, references = query_ids, _counts(query_ids, query_ids) - 1
    else:
        gallery_ids = pairs.ids_of_rows(gallery_labels, gallery, name="gallery_labels")
        references = _counts(query_ids, gallery_ids)
    if not references.any():
        raise ValueError(_no_match_message(query_ids, gallery_ids, gallery is None))
    return query_ids, gallery_ids, references


def _counts(query_ids, gallery_ids):
    """`[Q]`: how often each query's id is in the gallery."""
    classes, counts = np.unique(gallery_ids, return_counts=True)
    places = np.minimum(np.searchsorted(classes, query_ids), len(classes) - 1)
    return np.where(classes[places] == query_ids, counts[places], 0)


def _no_match_message(query_ids, gallery_ids, leave_one_out):
    if leave_one_out:
        return (
            f"No query has a match: each of the {len(query_ids)} rows is the only one of its "
            "class. Leave-one-out retrieval needs classes of two rows or more."
        )
    return (
        "No query has a match: queries and gallery have no class in common. Query labels begin "
        f"{query_ids[:5].tolist()}, gallery labels {gallery_ids[:5].tolist()}."
    )
