"""Keras callbacks: retrieval after each epoch, and a doctor for trainings that stand still."""

from circle_tf.callbacks.diagnostics import DiagnosticsCallback
from circle_tf.callbacks.retrieval_callback import RetrievalCallback

__all__ = ["DiagnosticsCallback", "RetrievalCallback"]
