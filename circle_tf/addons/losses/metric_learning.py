"""`tfa.losses.metric_learning`: distance matrices."""

from circle_tf import baselines
from circle_tf.ops import numerics

__all__ = ["angular_distance", "pairwise_distance"]


def pairwise_distance(feature, squared=False):
    """Euclidean distances between all rows, as `tfa.losses.metric_learning.pairwise_distance`.

    Args:
        feature: `[B, D]` float; half precision is computed in float32.
        squared: whether to leave out the square root.

    Returns:
        `[B, B]` float32 (float64 for float64).

    Example:
        >>> pairwise_distance([[0.0, 0.0], [3.0, 4.0]]).numpy().tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """
    return baselines.distances(numerics.as_loss_float(feature), squared=squared)


def angular_distance(feature):
    """`1 - cosine` between all rows, as `tfa.losses.metric_learning.angular_distance`.

    Args:
        feature: `[B, D]` float of any scale.

    Returns:
        `[B, B]` float32 (float64 for float64).

    Example:
        >>> angular_distance([[1.0, 0.0], [0.0, 2.0]]).numpy().tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return baselines.cosine_distances(numerics.as_loss_float(feature))
