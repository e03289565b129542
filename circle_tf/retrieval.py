"""Public name of `circle_tf.evaluation.retrieval`."""

from circle_tf.evaluation.retrieval import (
    mean_average_precision_at_r,
    nearest_neighbours,
    precision_at_1,
    r_precision,
    recall_at_k,
    retrieval_report,
)

__all__ = [
    "mean_average_precision_at_r",
    "nearest_neighbours",
    "precision_at_1",
    "r_precision",
    "recall_at_k",
    "retrieval_report",
]
