"""The ranges of a recipe's numbers, looked at before anything is read or built.

What depends on the data, the loss or other fields is refused where it is used.
"""

import math
from typing import NamedTuple

from trainers.cli import commands

__all__ = ["check"]

_FLIPS = ("", "horizontal", "vertical", "horizontal_and_vertical")
_MOST_ROWS = 2**31 - 1  # that TensorFlow's int32 shapes can count


class _Range(NamedTuple):
    """Numbers from `low` (or above it) to `high` (or below it); None: no limit but finite."""

    low: float
    high: float | None = None
    above: bool = False
    below: bool = False

    def holds(self, value):
        if not math.isfinite(value) or (self.above and value == self.low):
            return False
        if self.below and value == self.high:
            return False
        return self.low <= value and (self.high is None or value <= self.high)

    def __str__(self):
        if self.high is None:
            return f"a number above {self.low:g}" if self.above else f"{self.low:,} or more"
        to = "to below" if self.below else "to"
        return f"{'above' if self.above else 'from'} {self.low:,} {to} {self.high:,}"


_SHARE = _Range(0, 1)
_NOT_ALL = _Range(0, 0.99)  # A share of which something must be left.
_RANGES = {
    "augment.rotation": _Range(0, 360),
    **{
        f"augment.{name}": _SHARE
        for name in ("translation", "zoom", "shear", "brightness", "contrast", "saturation")
    },
    "augment.hue": _SHARE,
    "augment.bend": _SHARE,
    "augment.thicken": _Range(0, 16),
    "augment.cutout": _SHARE,
    "augment.fill_value": _Range(0, 255),
    "batch.classes_per_batch": _Range(2, 2**20),
    "batch.examples_per_class": _Range(1, 2**20),
    "hard_classes.group_size": _Range(1, 2**20),
    "hard_classes.neighbours": _Range(1, 2**20),
    "hard_classes.start": _Range(0),
    "hard_classes.every": _Range(1),
    "dataset.test_fraction": _SHARE,
    "dataset.seed": _Range(0, 2**32 - 1),
    "dataset.folds": _Range(0),
    "dataset.fold": _Range(0),
    "model.embedding_dim": _Range(1, 2**16),
    "model.dropout": _NOT_ALL,
    "loss.gamma_start": _Range(0, 1e38, above=True),
    "loss.margin_start": _Range(-1, 2),
    "loss.growth": _Range(0, 1, above=True),
    "fine_tune.freeze_steps": _Range(0),
    "fine_tune.learning_rate_factor": _Range(0, 1000, above=True),
    "fine_tune.layer_decay": _Range(0, 1, above=True),
    "loss.memory_size": _Range(0, 2**24),
    "loss.memory_start_step": _Range(0),
    "loss.label_smoothing": _NOT_ALL,
    "loss.sub_centers": _Range(1, 1024),
    "loss.class_level_weight": _Range(0, 1e38),
    "loss.max_bytes": _Range(1),
    "loss.sample_rate": _Range(0, 1, above=True),
    "cached_gradient_batch": _Range(0, _MOST_ROWS),
    "gradient_accumulation": _Range(1, _MOST_ROWS),
    "optimizer.learning_rate": _Range(0, 1e38, above=True),
    "optimizer.final_learning_rate": _Range(0, 1e38),
    "optimizer.warmup_steps": _Range(0),
    "optimizer.weight_decay": _Range(0, 1),
    "optimizer.momentum": _Range(0, 1),
    "optimizer.clipnorm": _Range(0),
    "optimizer.ema_momentum": _Range(0, 1, below=True),
    "optimizer.class_rate_factor": _Range(0, 1000, above=True),
    "epochs": _Range(0),
    "eval_every": _Range(1),
    "eval_examples": _Range(1),
    "checkpoint_every": _Range(1),
    "keep_checkpoints": _Range(1),
    "devices": _Range(0, 1024),
    "seed": _Range(0, 2**32 - 1),
}


def check(config):
    """Refuses numbers that no run can have.

    Args:
        config: recipe, an ml_collections.ConfigDict with the fields of configs/base.py.

    Raises:
        commands.ConfigError: it names the field, its range and what was found.

    Example:
        >>> from configs import base
        >>> config = base.get_config()
        >>> config.augment.zoom = 1.5
        >>> check(config)
        Traceback (most recent call last):
        trainers.cli.commands.ConfigError: augment.zoom must be from 0 to 1; found 1.5.
    """
    for field, allowed in _RANGES.items():
        section, _, name = field.rpartition(".")
        value = (config[section] if section else config)[name]
        if value is not None and not allowed.holds(value):
            raise commands.ConfigError(f"{field} must be {allowed}; found {value}.")
    if config.augment.flip not in _FLIPS:
        known = ", ".join(flip or "empty" for flip in _FLIPS)
        raise commands.ConfigError(
            f"augment.flip must be one of {known}; found {config.augment.flip!r}."
        )
    for name in ("saturation", "hue"):
        if config.augment[name] and config.dataset.channels == 1:
            raise commands.ConfigError(
                f"augment.{name} is for colour, dataset.channels=3: leave it 0 for grey images."
            )
