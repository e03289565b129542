"""Stochastic weight averaging, which Keras 3 does not have."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["StochasticWeightAveraging"]


class StochasticWeightAveraging(keras.callbacks.Callback):
    """Averages the weights of every `average_period`-th step, in place of `tfa.optimizers.SWA`.

    Steps count from 0 at the start of `fit`. The weights after step `start_averaging`, and after
    every `average_period`-th step from there on, enter a uniform average; when `fit` ends the model
    gets it. Weights that do not train (moving statistics of batch normalisation) stay: run some
    batches with `training=True` to fit them to the averaged weights.

    Args:
        start_averaging: int, the first step whose weights count, 0 or more.
        average_period: int, steps between two snapshots, 1 or more.

    Raises:
        ValueError: arguments out of range; a model compiled with `steps_per_execution` above 1,
            where a callback does not see each step.

    Example:
        >>> StochasticWeightAveraging(start_averaging=10, average_period=5).num_snapshots
        0

    References:
        Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", 2018.
    """

    def __init__(self, start_averaging: int = 0, average_period: int = 10) -> None:
        super().__init__()
        if start_averaging < 0 or average_period < 1:
            raise ValueError(
                "start_averaging must be 0 or more and average_period 1 or more; found "
                f"{start_averaging} and {average_period}."
            )
        self.start_averaging, self.average_period = start_averaging, average_period
        self.num_snapshots = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier `fit`."""
        steps = getattr(self.model, "steps_per_execution", None) or 1
        if int(steps) != 1:
            raise ValueError(f"Compile with steps_per_execution=1 for this; found {int(steps)}.")
        self._step, self.num_snapshots, self._averages = 0, 0, None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Takes the weights in if it is their turn."""
        since = self._step - self.start_averaging
        self._step += 1
        if since < 0 or since % self.average_period:
            return
        self.num_snapshots += 1
        weights = [weight.numpy() for weight in self.model.trainable_weights]
        if self._averages is None:
            self._averages = weights
            return
        self._averages = [
            average + (weight - average) / self.num_snapshots
            for average, weight in zip(self._averages, weights, strict=True)
        ]

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Gives the model the averages, if there are any."""
        for weight, average in zip(
            self.model.trainable_weights, self._averages or (), strict=False
        ):
            weight.assign(average)
