"""Losses: as functions of similarities, and as Keras losses for `model.compile`."""

from circle_tf.losses.circle import circle_loss
from circle_tf.losses.circle_losses import CircleLoss, ClassCircleLoss

__all__ = ["CircleLoss", "ClassCircleLoss", "circle_loss"]
