"""A callback that says in words what is wrong while a model trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf.losses import circle, hyperparameters
from circle_tf.ops import numerics, pairs
from circle_tf.utils import checks, shares

__all__ = ["DiagnosticsCallback"]

_COLLAPSED = 0.99  # Mean cosine of different classes.
_TOO_LARGE = 20.0  # Root mean square of what the first weights are multiplied with.
_NOTHING_LEFT = 1e-3  # Nats.
_RISEN = 1.5
_WINDOW = 20  # Steps whose losses are compared.


class DiagnosticsCallback(hyperparameters.Hyperparameters, keras.callbacks.Callback):
    """Looks at a batch now and then, and tells what keeps the model from learning.

    It knows: no valid anchors (batches without positives), colliding label ids, inputs that are not
    normalised, a learning rate too high for gamma, collapsed embeddings, and pair weights or losses
    that are saturated, so that nothing is left to learn. Each is reported once.

    Args:
        inputs: a batch as the model trains on, `[B, ...]`; a few hundred rows will do.
        labels: `[B]` its integer ids.
        margin: m of the loss: a float, a schedule or a variable, as in `CircleLoss`.
        gamma: of the loss, the same.
        every: int, steps between two looks; the first is before the first step.
        embed: function of `inputs` to embeddings `[B, D]`; the model itself by default.
        tell: function that is given each message.

    Attributes:
        found: dict of kind to message, of what has been reported.

    Raises:
        ValueError: lengths that differ, hyper-parameters out of range.

    Example:
        >>> said = []
        >>> model = keras.Sequential([keras.layers.Dense(2)])
        >>> look = DiagnosticsCallback(np.eye(2), [0, 1], tell=said.append)
        >>> look.set_model(model)
        >>> look.on_train_begin()
        >>> said[0]
        'No anchor of the batch has a positive, ...'
    """

    _RANGES = hyperparameters.OF_CIRCLE

    def __init__(
        self,
        inputs: ArrayLike,
        labels: ArrayLike,
        *,
        margin: hyperparameters.Scalar = 0.4,
        gamma: hyperparameters.Scalar = 80.0,
        every: int = 200,
        embed: Callable[[Any], Any] | None = None,
        tell: Callable[[str], object] = print,
    ) -> None:
        super().__init__()
        self._keep(margin=margin, gamma=gamma)
        self.every = checks.whole_number(every, "every", least=1)
        self.found = {}
        self._inputs, self._labels = tf.convert_to_tensor(inputs), np.asarray(labels)
        if len(self._labels) != len(self._inputs):
            raise ValueError(f"Found {len(self._labels)} labels for {len(self._inputs)} inputs.")
        self._embed, self._tell = embed, tell
        self._losses, self._steps = [], 0
        self._divides = False  # A loss grows with its gamma: then those by gamma are compared.

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Looks at labels, inputs and the untrained embeddings."""
        if getattr(self.model, "optimizer", None) is not None:
            self.follow(self.model.optimizer)
        self._divides = "gamma" in self.scheduled()
        self._look_at_labels()
        self._look_at_inputs()
        self._look()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the loss; at the embeddings every so many steps."""
        self._steps += 1
        self._look_at_loss((logs or {}).get("loss"))
        if self._steps % self.every == 0:
            self._look()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Looks once more."""
        self._look()

    def _gamma(self):
        return float(self.current().gamma)

    def _say(self, kind, message):
        if kind not in self.found:
            self.found[kind] = message
            self._tell(message)

    def _look_at_labels(self):
        labels = self._labels.reshape(-1)
        given = tf.convert_to_tensor(labels)
        if given.dtype.is_floating and not pairs.float_labels_are_exact(given):
            self._say(
                "label ids colliding",
                f"Labels of dtype {given.dtype.name} are fractions, or so large that neighbours "
                "are the same number: classes collide. Give integers.",
            )
            return
        ids = pairs.to_ids(labels).numpy()
        rounded = len(np.unique(ids.astype(np.float32)))
        if rounded < len(np.unique(ids)) and not _is_exact(getattr(self.model, "loss", None)):
            self._say(
                "label ids colliding",
                f"Keras casts labels to float32 for this loss, which makes {rounded} classes of "
                f"{len(np.unique(ids))}. Number the classes from 0 "
                "(np.unique(labels, return_inverse=True)), or use a loss of circle_tf.",
            )
        positives, negatives = pairs.batch_masks(tf.constant(ids), tf.constant(ids))
        if not np.any(circle.valid_anchors(positives, negatives)):
            missing = "negative" if np.any(positives) else "positive"
            self._say(
                "no valid anchors",
                f"No anchor of the batch has a {missing}, so a pair-wise loss is 0 and teaches "
                "nothing. Use batches of P classes x K examples: pk_dataset.",
            )

    def _look_at_inputs(self):
        reaching = _reaching_first_weights(self.model, self._inputs)
        size = float(tf.sqrt(tf.reduce_mean(tf.square(tf.cast(reaching, tf.float32)))))
        if size > _TOO_LARGE:
            self._say(
                "unnormalised input",
                f"The first weights are multiplied with numbers of about {size:.0f}: the input is "
                "not normalised. Begin the model with keras.layers.Rescaling(1 / 127.5, -1) for "
                "pixels 0..255, or keras.layers.Normalization.",
            )

    def _look_at_loss(self, loss):
        if loss is None:
            return
        self._losses.append(float(loss) / (self._gamma() if self._divides else 1))
        if not math.isfinite(float(loss)):
            self._say(
                "learning rate too high",
                f"The loss is {float(loss)} at step {self._steps}. Lower the learning rate, "
                f"or gamma (now {self._gamma():g}: gradients are proportional to it).",
            )
        first, last = self._losses[:_WINDOW], self._losses[-_WINDOW:]
        del self._losses[_WINDOW:-_WINDOW]
        risen = len(self._losses) == 2 * _WINDOW and np.median(last) > _RISEN * np.median(first)
        if risen and np.median(first) > 0:
            what = "loss / gamma" if self._divides else "loss"
            self._say(
                "learning rate too high",
                f"The {what} has risen from {np.median(first):.3g} to {np.median(last):.3g} in "
                f"{self._steps} steps: the learning rate is too high for gamma {self._gamma():g}, "
                "to which gradients are proportional. Lower it, or warm it up.",
            )

    def _look(self):
        embed = self._embed or (lambda inputs: self.model(inputs, training=False))
        unit = numerics.safe_normalize(tf.convert_to_tensor(embed(self._inputs)))
        if unit.shape.rank != 2 or not np.all(np.isfinite(unit)):
            return
        ids = tf.constant(np.unique(self._labels.reshape(-1), return_inverse=True)[1])
        positives, negatives = pairs.batch_masks(ids, ids)
        similarities = tf.matmul(unit, unit, transpose_b=True)
        if not np.any(negatives):
            return
        apart = similarities.numpy()[negatives.numpy()]
        if np.mean(apart) > _COLLAPSED:
            self._say(
                "collapsed embeddings",
                f"Embeddings of different classes have a mean cosine of {np.mean(apart):.3f}: they "
                "have collapsed into one direction. Lower the learning rate, and look for inputs "
                "that are all alike or an activation that is dead before the embedding.",
            )
        elif self._steps:
            self._look_at_weights(similarities, positives, negatives)

    def _look_at_weights(self, similarities, positives, negatives):
        valid = circle.valid_anchors(positives, negatives).numpy()
        options = vars(self.current(similarities.dtype))
        losses = circle.circle_loss(similarities, positives, negatives, **options).numpy()
        if np.any(valid) and np.max(losses[valid]) < _NOTHING_LEFT:
            weights = circle.anchor_weights(similarities, margin=options["margin"])
            idle = np.mean(weights[1].numpy()[negatives.numpy()] == 0)
            share = shares.as_text(idle, ".0%")
            self._say(
                "saturated weights",
                f"Every anchor's loss is below {_NOTHING_LEFT:g} (and {share} of the negatives "
                "have weight 0): all pairs are inside the circle, nothing is left to learn from "
                "this batch. Train on harder or more classes, or lower the margin.",
            )


def _is_exact(loss):
    return loss is None or getattr(loss, "crosses_replicas", False)


def _reaching_first_weights(model, inputs):
    """What the first layer with trainable weights is given; the inputs if that is not known."""
    try:
        layer = next(layer for layer in model.layers if layer.trainable_weights)
        return keras.Model(model.inputs, layer.input)(inputs, training=False)
    except (AttributeError, StopIteration, TypeError, ValueError, RuntimeError):
        return inputs
