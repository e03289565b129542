"""The section `hard_classes` of a recipe: batches of classes that look alike."""

import math
import time

import numpy as np
import tensorflow as tf

from circle_tf import evaluation
from trainers.cli import commands
from trainers.evaluation import metrics

__all__ = ["HardClasses", "check"]

_EXAMPLES = 4  # of a class, whose mean stands for it


class HardClasses:
    """The nearest classes of each class, by the model as it was when they were last found.

    They are kept in a variable, for checkpoints: what a run goes on with is what it had.

    Args:
        config: recipe; reads `hard_classes`.
        split: trainers.datasets.Split to train on, as the model takes it.
        model: keras.Model from its examples to embeddings.
        exchange: trainers.distributed.agreement.Exchange.

    Attributes:
        variables: list of tf.Variables that are part of the run's state.
    """

    def __init__(self, config, split, *, model, exchange):
        self._section, self._split = config.hard_classes, split
        self._model, self._exchange = model, exchange
        self._nearest, self.variables = None, []
        if self._section.group_size > 1:
            classes = len(np.unique(split.labels))
            shape = [classes, min(self._section.neighbours, classes - 1)]
            self._nearest = tf.Variable(tf.zeros(shape, tf.int32), trainable=False)
            self.variables = [self._nearest]

    def options(self, step):
        """How the batches from a step on are made; every worker must call it at the same time.

        Args:
            step: int, steps done. Where the nearest classes are to be found anew, they are.

        Returns:
            dict of arguments of `circle_tf.pk_dataset`.
        """
        since = step - self._section.start
        if self._nearest is None or since < 0:
            return {}
        if since % self._section.every == 0:
            self._refresh(step)
        return {
            "nearest_classes": self._nearest.numpy(),
            "group_size": self._section.group_size,
        }

    def next_refresh(self, step):
        """The first step after `step` at which batches are made in another way.

        Args:
            step: int, steps done.

        Returns:
            int; infinity if there is none.
        """
        start, every = self._section.start, self._section.every
        if self._nearest is None:
            return math.inf
        return start if step < start else start + ((step - start) // every + 1) * every

    def _refresh(self, step):
        """Of several workers the chief embeds: machines may differ in the last bit."""
        nearest = np.zeros(self._nearest.shape, np.int64)
        if self._exchange.cluster.is_chief:
            began = time.monotonic()
            rows = _some_of_each_class(self._split.labels)
            embeddings = metrics.embed(self._model, self._split, rows)
            labels = self._split.labels[rows]
            nearest = evaluation.nearest_classes(embeddings, labels, nearest.shape[1])
            took = time.monotonic() - began
            classes = len(nearest)
            print(f"Step {step}: nearest of {classes} classes found, {took:.1f} s.", flush=True)
        self._nearest.assign(self._exchange.from_chief(nearest))


def check(config):
    """Refuses groups that the batches have no room for, and refreshes amid an epoch.

    Args:
        config: recipe.

    Raises:
        commands.ConfigError: what was expected, and found.
    """
    section = config.hard_classes
    if section.group_size == 1:
        return
    most = min(config.batch.classes_per_batch, section.neighbours + 1)
    if section.group_size > most:
        raise commands.ConfigError(
            f"hard_classes.group_size must be at most {most}, one more than hard_classes.neighbours"
            f" and no more than batch.classes_per_batch; found {section.group_size}."
        )
    for name in ("start", "every"):
        if section[name] % config.eval_every:
            raise commands.ConfigError(
                f"hard_classes.{name} must be a multiple of eval_every={config.eval_every}, as the "
                f"nearest classes are found between two epochs; found {section[name]}."
            )


def _some_of_each_class(labels):
    """Rows of up to four examples of each class, spread evenly over it."""
    _, starts, counts = np.unique(np.sort(labels), return_index=True, return_counts=True)
    places = [starts + part * counts // _EXAMPLES for part in range(_EXAMPLES)]
    return np.unique(np.argsort(labels, kind="stable")[np.concatenate(places)])
