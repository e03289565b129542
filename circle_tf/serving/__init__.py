"""SavedModels for TF Serving: signatures, stored weights, galleries, and checks of their graphs."""

from circle_tf.serving.gallery import Gallery
from circle_tf.serving.servable import save_servable

__all__ = ["Gallery", "save_servable"]
