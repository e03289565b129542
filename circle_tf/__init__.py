"""Circle loss for TensorFlow: train embedding models on class-level and pair-wise labels.

    model.compile(optimizer="adam", loss=circle_tf.CircleLoss(margin=0.4, gamma=80.0))
    model.fit(circle_tf.pk_dataset(images, labels, classes_per_batch=32, examples_per_class=4))

The maths stands in `circle_loss`; losses, layers and heads decide where similarities and masks
come from. See Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity Optimization",
CVPR 2020.
"""

from circle_tf import addons, backbones, baselines, callbacks, metrics, plots, records, retrieval
from circle_tf.callbacks.diagnostics import DiagnosticsCallback
from circle_tf.callbacks.retrieval_callback import RetrievalCallback
from circle_tf.data.records import RecordFiles
from circle_tf.data.sampling import PKSampler, pk_dataset
from circle_tf.evaluation.clustering import normalized_mutual_information
from circle_tf.evaluation.identification import (
    detection_and_identification_rate,
    distractor_identification,
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
from circle_tf.layers.heads import CircleHead
from circle_tf.layers.layers import CosineClassifier, PairwiseCircle, UnitEmbedding
from circle_tf.layers.memory import CrossBatchCircleLoss, CrossBatchMemory
from circle_tf.losses.circle import circle_loss
from circle_tf.losses.circle_losses import CircleLoss, ClassCircleLoss
from circle_tf.serving.gallery import Gallery
from circle_tf.serving.servable import save_servable
from circle_tf.training.model import EmbeddingModel
from circle_tf.version import __version__

__all__ = [
    "CircleHead",
    "CircleLoss",
    "ClassCircleLoss",
    "CosineClassifier",
    "CrossBatchCircleLoss",
    "CrossBatchMemory",
    "DiagnosticsCallback",
    "EmbeddingModel",
    "Gallery",
    "PKSampler",
    "PairwiseCircle",
    "RecordFiles",
    "RetrievalCallback",
    "UnitEmbedding",
    "__version__",
    "addons",
    "backbones",
    "baselines",
    "callbacks",
    "circle_loss",
    "cmc",
    "detection_and_identification_rate",
    "distractor_identification",
    "flip_test_embeddings",
    "k_fold_accuracy",
    "k_reciprocal_distances",
    "mean_average_precision_at_r",
    "metrics",
    "nearest_neighbours",
    "normalized_mutual_information",
    "pair_similarities",
    "pk_dataset",
    "plots",
    "precision_at_1",
    "r_precision",
    "recall_at_k",
    "records",
    "reidentification_report",
    "retrieval",
    "retrieval_report",
    "save_servable",
    "tar_at_far",
    "template_embeddings",
    "template_report",
    "verification_report",
]
