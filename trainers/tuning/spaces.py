"""What is searched: the fields of a recipe, and between which values."""

import dataclasses
import math

from trainers.cli import commands

__all__ = ["PUBLISHED", "Choice", "Range", "parse", "usual"]

# Margin and gamma of each loss; the published values are among them.
PUBLISHED = {
    "circle": {"margin": (0.1, 0.25, 0.4), "gamma": (32.0, 80.0, 256.0)},
    "keras_circle": {"margin": (0.1, 0.25, 0.4), "gamma": (32.0, 80.0, 256.0)},
    "unified": {"margin": (0.0, 0.1, 0.25), "gamma": (16.0, 32.0, 80.0)},
    "contrastive": {"margin": (0.5, 1.0, 1.4)},
    "triplet_semihard": {"margin": (0.1, 0.2, 0.5)},
    "triplet_hard": {"margin": (0.1, 0.2, 0.5)},
    "triplet_all": {"margin": (0.1, 0.2, 0.5)},
    "lifted_structure": {"margin": (0.5, 1.0, 1.5)},
    "n_pairs": {"gamma": (8.0, 16.0, 32.0)},
    "multi_similarity": {"margin": (0.3, 0.5, 0.7), "gamma": (25.0, 50.0, 100.0)},
    "class_circle": {"margin": (0.1, 0.25, 0.4), "gamma": (32.0, 64.0, 256.0)},
    "circle_head": {"margin": (0.1, 0.25, 0.4), "gamma": (32.0, 64.0, 256.0)},
    "norm_face": {"gamma": (8.0, 16.0, 32.0)},
    "am_softmax": {"margin": (0.1, 0.2, 0.35), "gamma": (16.0, 30.0, 64.0)},
    "arc_face": {"margin": (0.1, 0.3, 0.5), "gamma": (16.0, 30.0, 64.0)},
    "proxy_anchor": {"margin": (0.0, 0.1, 0.2), "gamma": (16.0, 32.0, 64.0)},
    "cross_entropy": {},
}
_RATES = (3e-4, 1e-2)


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, whole ones if `whole`, evenly by their logarithm if `log`."""

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def suggest(self, trial, field):
        """A value for an optuna.Trial."""
        kind = trial.suggest_int if self.whole else trial.suggest_float
        return kind(field, self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple

    def suggest(self, trial, field):
        """A value for an optuna.Trial."""
        return trial.suggest_categorical(field, self.values)


def usual(loss):
    """What is searched unless the command says otherwise: learning rate, and the loss's numbers.

    Args:
        loss: name of the loss.

    Returns:
        dict of a field to its Range.

    Example:
        >>> usual("circle")["loss.gamma"]
        Range(low=32.0, high=256.0, log=True, whole=False)
    """
    space = {"optimizer.learning_rate": Range(*_RATES, log=True)}
    for name, values in PUBLISHED.get(loss, {}).items():
        space[f"loss.{name}"] = Range(min(values), max(values), log=name == "gamma")
    return space


def parse(text, config):
    """A field and its values, as `--search` takes them.

    Args:
        text: `FIELD=LOW:HIGH`, `FIELD=LOW:HIGH:log` or `FIELD=VALUE,VALUE,...`.
        config: recipe, which has the field; whole numbers where its value is one.

    Returns:
        `(field, Range or Choice)`.

    Raises:
        commands.ConfigError: no such field, or other text.

    Example:
        >>> from configs import base
        >>> parse("batch.examples_per_class=2,4,8", base.get_config())
        ('batch.examples_per_class', Choice(values=(2, 4, 8)))
        >>> parse("loss.gamma=16:256:log", base.get_config())
        ('loss.gamma', Range(low=16.0, high=256.0, log=True, whole=False))
    """
    field, equals, values = text.partition("=")
    known = config.to_dict()
    for name in field.split("."):
        known = known.get(name, KeyError) if isinstance(known, dict) else KeyError
    if not equals or known is KeyError or isinstance(known, dict):
        raise commands.ConfigError(
            f"--search wants FIELD=LOW:HIGH, FIELD=LOW:HIGH:log or FIELD=VALUE,VALUE with a field "
            f"of configs/base.py; found {text!r}."
        )
    if ":" not in values:
        return field, Choice(tuple(_value(word, known) for word in values.split(",")))
    low, high, *rest = values.split(":")
    whole = isinstance(known, int) and not isinstance(known, bool)
    try:
        low, high = ((int if whole else float)(end) for end in (low, high))
    except ValueError:
        low = high = math.nan
    if not low < high or rest not in ([], ["log"]) or (rest and low <= 0):
        raise commands.ConfigError(
            f"--search={field} wants two {'whole ' if whole else ''}numbers, the lower first, and "
            f"above 0 with :log; found {values!r}."
        )
    return field, Range(low, high, log=bool(rest), whole=whole)


def _value(word, like):
    """A word as the kind of value that the field has, or else looks like."""
    if isinstance(like, bool):
        if word.lower() not in ("true", "false"):
            raise commands.ConfigError(f"Expected true or false; found {word!r}.")
        return word.lower() == "true"
    if isinstance(like, str):
        return word
    for kind in (float,) if isinstance(like, float) else (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    if like is None:  # A placeholder for text, perhaps.
        return word
    raise commands.ConfigError(f"Expected a number; found {word!r}.")
