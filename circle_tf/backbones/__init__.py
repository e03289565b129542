"""Backbones by name: from pixels 0..255 to features, with the preprocessing inside the model."""

from circle_tf.backbones.by_name import build, names
from circle_tf.backbones.keras_cv import import_keras_cv
from circle_tf.backbones.pooling import GeneralizedMean
from circle_tf.backbones.pretrained import load_model

__all__ = ["GeneralizedMean", "build", "import_keras_cv", "load_model", "names"]
