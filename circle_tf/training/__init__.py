"""`EmbeddingModel`: one step on one device or many, and every touch of Keras' private side."""

from circle_tf.training.model import EmbeddingModel

__all__ = ["EmbeddingModel"]
