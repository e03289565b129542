"""Pictures of embeddings and of training, as matplotlib figures and for TensorBoard."""

from circle_tf.plots.figures import (
    figure_to_image,
    retrieval_sheet,
    save_png,
    similarity_histograms,
    similarity_scatter,
    training_curves,
)
from circle_tf.plots.projector import write_projector

__all__ = [
    "figure_to_image",
    "retrieval_sheet",
    "save_png",
    "similarity_histograms",
    "similarity_scatter",
    "training_curves",
    "write_projector",
]
