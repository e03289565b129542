"""Layers: unit embeddings, cosines to classes, losses as layers, memory, the class-level head."""

from circle_tf.layers.cosine_classifier import CosineClassifier
from circle_tf.layers.heads import CircleHead
from circle_tf.layers.loss_layers import PairwiseCircle
from circle_tf.layers.memory import CrossBatchCircleLoss, CrossBatchMemory
from circle_tf.layers.unit_embedding import UnitEmbedding

__all__ = [
    "CircleHead",
    "CosineClassifier",
    "CrossBatchCircleLoss",
    "CrossBatchMemory",
    "PairwiseCircle",
    "UnitEmbedding",
]
