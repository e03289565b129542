"""Backbones by name: from pixels 0..255 to features, with the preprocessing inside the model."""

from circle_tf.backbones.by_name import build, import_keras_cv, names

__all__ = ["build", "import_keras_cv", "names"]
