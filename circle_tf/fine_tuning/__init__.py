"""Fine-tuning: which of a backbone's blocks train, when and how fast; its features from a cache."""

from circle_tf.fine_tuning.features import cache_features
from circle_tf.fine_tuning.schedule import FineTuning, TunedBlock

__all__ = ["FineTuning", "TunedBlock", "cache_features"]
