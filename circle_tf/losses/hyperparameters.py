"""Margins, gammas and their like: numbers, variables, or schedules of the optimizer's updates."""

from __future__ import annotations

import math
import numbers
import types
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.ops import numerics
from circle_tf.utils import checks

__all__ = [
    "ABOVE_0",
    "GAMMA",
    "MARGIN",
    "NOT_NEGATIVE",
    "OF_CIRCLE",
    "SMOOTHING",
    "Hyperparameters",
    "Range",
    "Scalar",
    "check",
    "constant",
    "scheduled_values",
]


class _Variable(Protocol):
    def assign(self, value: Any) -> Any: ...


# What a hyper-parameter can be given as.
Scalar = float | _Variable | Callable[[Any], Any]


class Range(NamedTuple):
    """Numbers from `low` (or above it) to `high`, and how to say that."""

    low: float
    high: float
    words: str
    above: bool = False

    def holds(self, value):
        """Whether a float, or a scalar tensor, is one of them; NaN is not."""
        over = value > self.low if self.above else value >= self.low
        return over & (value <= self.high)


_LARGEST = float(tf.float32.max)
GAMMA = Range(0, _LARGEST, "a finite number above 0 (the paper uses 80 to 256)", above=True)
ABOVE_0 = Range(0, _LARGEST, "above 0", above=True)
MARGIN = Range(-1, 1, "in -1..1 (the paper uses 0.25 and 0.4)")
NOT_NEGATIVE = Range(0, _LARGEST, "a finite number of 0 or more")
SMOOTHING = Range(0, math.nextafter(1, 0), "0 or more, below 1")
OF_CIRCLE = {"margin": MARGIN, "gamma": GAMMA}


def check(name, value, allowed):
    """Refuses what is no number of a range; of a scalar tensor, whose value nobody knows, no more.

    Args:
        name: str, what it is called.
        value: what was given.
        allowed: `Range`.

    Raises:
        ValueError: out of range, no scalar; TypeError: not a number.

    Example:
        >>> check("margin", 0.25, MARGIN)
        >>> check("margin", 2, MARGIN)
        Traceback (most recent call last):
        ValueError: margin must be in -1..1 (the paper uses 0.25 and 0.4); found 2.
    """
    if tf.is_tensor(value):
        if value.shape.rank != 0:
            raise ValueError(f"{name} must be one number; found a tensor of shape {value.shape}.")
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a Python number; found {value!r}.")
    if not allowed.holds(value):
        raise ValueError(f"{name} must be {allowed.words}; found {value}.")


def constant(value, dtype):
    """A hyper-parameter to compute with: a float stays one, a scalar gets a dtype and no gradient.

    Args:
        value: number, or scalar tensor.
        dtype: of the similarities.

    Returns:
        float, or scalar tensor of `dtype`.

    Example:
        >>> constant(80, tf.float64), constant(tf.constant(80.0), tf.float64).dtype.name
        (80.0, 'float64')
    """
    return tf.stop_gradient(tf.cast(value, dtype)) if tf.is_tensor(value) else float(value)


class Hyperparameters:
    """What has hyper-parameters that may change while it is trained; before a Keras class.

    Each is a number; a scalar variable, which is read at each step; or a schedule: a
    `keras.optimizers.schedules.LearningRateSchedule`, or any function from the number of the
    optimizer's updates so far (an int64 scalar) to a scalar, written with TensorFlow's operations.
    No gradient flows to them. A value that leaves the range later is an error, and under XLA, which
    drops the check, a NaN loss.

    A subclass names them with their ranges in `_RANGES`, hands them to `_keep`, computes with
    `current()`, and returns `_saved()` as part of its config. Saved are schedules, as Keras
    serialises them, and of variables the value at that time.

    Example:
        >>> class Scaled(Hyperparameters):
        ...     _RANGES = {"gamma": GAMMA}
        ...
        ...     def __init__(self, gamma):
        ...         self._keep(gamma=gamma)
        >>> scaled = Scaled(lambda step: 16.0 + tf.cast(step, tf.float32))
        >>> optimizer = keras.optimizers.SGD()
        >>> float(scaled.follow(optimizer).current().gamma)
        16.0
        >>> _ = optimizer.iterations.assign(4)
        >>> float(scaled.current().gamma)
        20.0
    """

    _RANGES: ClassVar[Mapping[str, Range]] = {}
    _updates: Callable[[], Any] | None = None

    def follow(self, optimizer: keras.optimizers.Optimizer) -> Self:
        """Says whose updates the schedules count; without a schedule it makes no difference.

        `EmbeddingModel.compile` does it for its losses, layers and metrics. In a `keras.Model`, or
        a loop of your own, do it before the first step: `CircleLoss(gamma=...).follow(optimizer)`.
        Of several models that share a loss or a layer the one compiled last counts.

        Args:
            optimizer: Keras optimizer that trains.

        Returns:
            The object itself.

        Raises:
            TypeError: no optimizer, but its name, say.
        """
        counting = getattr(optimizer, "inner_optimizer", optimizer)
        if not hasattr(counting, "iterations"):
            raise TypeError(
                f"follow wants the optimizer that trains, a keras.optimizers.Optimizer; found "
                f"{optimizer!r}."
            )
        # In a function, in which Keras does not look for what it would save with the object.
        self._updates = lambda: counting.iterations
        return self

    def current(self, dtype: Any = None) -> types.SimpleNamespace:
        """The hyper-parameters now, by name: floats, and scalars of a dtype where they can change.

        Args:
            dtype: None for that of the schedule or variable.

        Returns:
            Object with an attribute for each.

        Raises:
            RuntimeError: a schedule, and nobody has called `follow`.
            tf.errors.InvalidArgumentError: out of range (NaN under XLA).
        """
        values = {name: self._value(name) for name in self._RANGES}
        if dtype is not None:
            values = {name: constant(value, dtype) for name, value in values.items()}
        return types.SimpleNamespace(**values)

    def scheduled(self) -> dict[str, float]:
        """Those that can change, by name, and their values now."""
        changing = (name for name in self._RANGES if _can_change(getattr(self, name)))
        return {name: float(self._value(name)) for name in changing}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """As Keras'; schedules are loaded."""
        loaded = {
            name: keras.saving.deserialize_keras_object(value)
            for name, value in config.items()
            if name in cls._RANGES and isinstance(value, dict)
        }
        return super().from_config({**config, **loaded})

    def _keep(self, **given):
        for name, value in given.items():
            setattr(self, name, _accepted(name, value, self._RANGES[name]))

    def _saved(self):
        return {name: _as_config(getattr(self, name)) for name in self._RANGES}

    def _value(self, name):
        value = getattr(self, name)
        if not _can_change(value):
            return value
        if not _is_variable(value):
            value = value(self._step(name))
        value = tf.stop_gradient(numerics.as_loss_float(value))
        allowed = self._RANGES[name]
        holds = allowed.holds(value)
        message = f"{name} must be {allowed.words}, at each step; its schedule or variable has"
        return tf.where(holds, checks.passing(value, holds, message, value), float("nan"))

    def _step(self, name):
        if self._updates is None:
            raise RuntimeError(
                f"{name} of {type(self).__name__} is a schedule, and nobody has said whose updates "
                "it counts. Train in circle_tf.EmbeddingModel, whose compile does, or call "
                "follow(optimizer) with the optimizer that trains, before the first step."
            )
        return tf.cast(tf.convert_to_tensor(self._updates()), tf.int64)


def scheduled_values(model):
    """The hyper-parameters of a model that can change, and their values now.

    Args:
        model: compiled keras.Model.

    Returns:
        dict from name (`gamma`) to float; where several have one, from `circle_loss_gamma`.

    Example:
        >>> scheduled_values(keras.Sequential())
        {}
    """
    parts = [*tf.nest.flatten(getattr(model, "loss", None)), *getattr(model, "layers", [])]
    found = [
        (part, name, value)
        for part in parts
        if isinstance(part, Hyperparameters)
        for name, value in part.scheduled().items()
    ]
    names = [name for _, name, _ in found]
    return {
        name if names.count(name) == 1 else f"{part.name}_{name}": value
        for part, name, value in found
    }


def _accepted(name, value, allowed):
    """What to keep of what was given: a float, a tf.Variable or a function."""
    if _is_variable(value):
        value = value if isinstance(value, tf.Variable) else compat.tf_variable(value)
        if value.shape.rank != 0:
            raise ValueError(f"{name} must be one number; found a variable of {value.shape}.")
        return value
    if not callable(value):
        check(name, value, allowed)
        return float(value)
    with tf.init_scope():  # Also where a graph is being made.
        first = tf.convert_to_tensor(value(tf.constant(0, tf.int64)))
        if first.shape.rank != 0:
            raise ValueError(f"{name} must be one number; its schedule gives {first.shape}.")
        if not math.isfinite(first) or not allowed.holds(float(first)):
            raise ValueError(
                f"{name} must be {allowed.words}; its schedule begins with {float(first):g}."
            )
    return value


def _can_change(value):
    return _is_variable(value) or callable(value)


def _is_variable(value):
    return isinstance(value, tf.Variable) or compat.is_keras_variable(value)


def _as_config(value):
    if _is_variable(value):
        return float(value)
    return keras.saving.serialize_keras_object(value) if callable(value) else value
