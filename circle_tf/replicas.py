"""Where a batch meets the other replicas' batches: the only module that talks to tf.distribute."""

import tensorflow as tf

__all__ = ["check_strategy", "gather_rows"]


def gather_rows(rows):
    """Rows of the whole global batch, and where this replica's own rows begin in it.

    Anchors are a replica's own rows; keys are all rows. On one replica both are the same.

    Args:
        rows: `[n, ...]` tensor, this replica's part of the global batch.

    Returns:
        `(all_rows [N, ...], offset)`: own row `i` is row `offset + i` of `all_rows`.

    Raises:
        NotImplementedError: under a strategy with more than one replica. In-batch pairs that
            silently stay within a replica would be another loss.

    Example:
        >>> all_rows, offset = gather_rows(tf.ones([4, 2]))
        >>> all_rows.shape.as_list(), offset
        ([4, 2], 0)
    """
    check_strategy(tf.distribute.get_strategy())
    return rows, 0


def check_strategy(strategy):
    """Refuses a strategy under which in-batch pairs would silently stay within a replica.

    Args:
        strategy: a `tf.distribute.Strategy`.

    Raises:
        NotImplementedError: it has more than one replica.

    Example:
        >>> check_strategy(tf.distribute.get_strategy())
    """
    if strategy.num_replicas_in_sync > 1:
        raise NotImplementedError(
            "circle_tf trains on one replica for now; the current strategy, "
            f"{type(strategy).__name__}, has {strategy.num_replicas_in_sync}. Create and compile "
            "the model under tf.distribute.OneDeviceStrategy or without a strategy."
        )
