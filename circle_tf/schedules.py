"""Schedules of margins and gammas beside those of `keras.optimizers.schedules`."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.utils import checks

__all__ = ["GeometricGrowth"]


@keras.saving.register_keras_serializable("circle_tf")
class GeometricGrowth(keras.optimizers.schedules.LearningRateSchedule):
    """Grows (or falls) by the same factor at each update, and then stays.

    `start * (end / start) ** min(step / steps, 1)`: gamma from a fifth of its value to the whole,
    say. For a margin, which may be 0 or below, take
    `keras.optimizers.schedules.PolynomialDecay(start, steps, end)`, a straight line.

    Args:
        start: float above 0, value at the first update.
        end: float above 0, value from update `steps` on.
        steps: int of 1 or more, updates of the optimizer.

    Raises:
        ValueError: numbers out of range.

    Example:
        >>> gamma = GeometricGrowth(16.0, 64.0, steps=100)
        >>> [round(float(gamma(step)), 3) for step in (0, 50, 100, 200)]
        [16.0, 32.0, 64.0, 64.0]
        >>> import circle_tf
        >>> loss = circle_tf.CircleLoss(margin=0.25, gamma=gamma)
    """

    def __init__(self, start: float, end: float, steps: int) -> None:
        super().__init__()
        for name, value in (("start", start), ("end", end)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a finite number above 0; found {value}.")
        self.start, self.end = float(start), float(end)
        self.steps = checks.whole_number(steps, "steps", least=1)

    def __call__(self, step: ArrayLike) -> tf.Tensor:
        """The value, float32, after so many updates."""
        share = tf.cast(step, tf.float32) / self.steps
        grown = self.start * tf.exp(share * math.log(self.end / self.start))
        return tf.where(share < 1, grown, self.end)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"start": self.start, "end": self.end, "steps": self.steps}
