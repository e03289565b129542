"""Exact search, and the protocols of retrieval, re-identification, verification and clustering."""

from circle_tf.evaluation.calibration import Calibration, Threshold, calibrate
from circle_tf.evaluation.class_neighbours import nearest_classes
from circle_tf.evaluation.clustering import normalized_mutual_information
from circle_tf.evaluation.identification import (
    detection_and_identification_rate,
    distractor_identification,
)
from circle_tf.evaluation.label_errors import (
    Confusion,
    LabelInspection,
    Suspect,
    inspect_labels,
)
from circle_tf.evaluation.reidentification import cmc, reidentification_report
from circle_tf.evaluation.reranking import k_reciprocal_distances
from circle_tf.evaluation.retrieval import (
    mean_average_precision_at_r,
    nearest_neighbours,
    precision_at_1,
    r_precision,
    recall_at_k,
    retrieval_report,
)
from circle_tf.evaluation.templates import template_embeddings, template_report
from circle_tf.evaluation.verification import (
    flip_test_embeddings,
    k_fold_accuracy,
    pair_similarities,
    tar_at_far,
    verification_report,
)

__all__ = [
    "Calibration",
    "Confusion",
    "LabelInspection",
    "Suspect",
    "Threshold",
    "calibrate",
    "cmc",
    "detection_and_identification_rate",
    "distractor_identification",
    "flip_test_embeddings",
    "inspect_labels",
    "k_fold_accuracy",
    "k_reciprocal_distances",
    "mean_average_precision_at_r",
    "nearest_classes",
    "nearest_neighbours",
    "normalized_mutual_information",
    "pair_similarities",
    "precision_at_1",
    "r_precision",
    "recall_at_k",
    "reidentification_report",
    "retrieval_report",
    "tar_at_far",
    "template_embeddings",
    "template_report",
    "verification_report",
]
