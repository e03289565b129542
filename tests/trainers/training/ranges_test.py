"""Every number of a recipe has a range, and leaving it is one line."""

import importlib
import math
import pathlib

import pytest

import configs
from configs import base
from trainers.cli import commands
from trainers.training import ranges

RECIPES = sorted(
    path.stem
    for path in pathlib.Path(configs.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "paper")
)
# Looked at where they are used: by the data set, the schedule, the length of the run, the losses.
ELSEWHERE = {"dataset.image_size", "dataset.image_width", "dataset.channels", "steps"}


def numbers(config, prefix=""):
    for name, value in config.items():
        if hasattr(value, "items"):
            yield from numbers(value, f"{prefix}{name}.")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + name


def changed(**values):
    """A colour recipe with changes, their names with `__` for the dot."""
    config = base.get_config()
    config.dataset.channels = 3
    config.update_from_flattened_dict({n.replace("__", "."): v for n, v in values.items()})
    return config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_within(name):
    ranges.check(importlib.import_module(f"configs.{name}").get_config())


@pytest.mark.parametrize("field", sorted(set(numbers(base.get_config())) - ELSEWHERE))
def test_every_number_of_a_recipe_has_a_range(field):
    config = base.get_config()
    section, _, name = field.rpartition(".")
    target = config[section] if section else config
    is_whole = isinstance(target[name], int)
    for value in (-1,) if is_whole else (-1.0, math.nan, math.inf):
        target[name] = value
        with pytest.raises(commands.ConfigError, match=f"^{field} must be .*; found {value}"):
            ranges.check(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("augment__cutout", 1.5, "augment.cutout must be from 0 to 1; found 1.5."),
        ("augment__flip", "up", "augment.flip must be one of empty, horizontal, .*; found 'up'."),
        ("loss__sample_rate", 0.0, "loss.sample_rate must be above 0 to 1; found 0.0."),
        ("loss__gamma_start", 0.0, "loss.gamma_start must be above 0 to .*; found 0.0."),
        ("loss__margin_start", -2.0, "loss.margin_start must be from -1 to 2; found -2.0."),
        ("optimizer__learning_rate", 0.0, "optimizer.learning_rate must be above 0 to"),
        ("optimizer__ema_momentum", 1.0, "ema_momentum must be from 0 to below 1; found 1.0."),
        ("model__embedding_dim", 10**9, "model.embedding_dim must be from 1 to 65,536; found 10"),
        ("keep_checkpoints", 0, "keep_checkpoints must be 1 or more; found 0."),
    ],
)
def test_messages(field, value, message):
    with pytest.raises(commands.ConfigError, match=message):
        ranges.check(changed(**{field: value}))


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_changes_of_colour_are_for_colour(name):
    config = changed(**{f"augment__{name}": 0.5})
    ranges.check(config)
    config.dataset.channels = 1
    with pytest.raises(commands.ConfigError, match=f"augment.{name} is for colour"):
        ranges.check(config)
