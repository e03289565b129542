"""Layers: unit embeddings, cosines to classes, losses as layers, memory, the class-level head."""

from circle_tf.layers.heads import CircleHead
from circle_tf.layers.layers import CosineClassifier, PairwiseCircle, UnitEmbedding
from circle_tf.layers.memory import CrossBatchCircleLoss, CrossBatchMemory

__all__ = [
    "CircleHead",
    "CosineClassifier",
    "CrossBatchCircleLoss",
    "CrossBatchMemory",
    "PairwiseCircle",
    "UnitEmbedding",
]
