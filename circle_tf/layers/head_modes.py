"""How `CircleHead` scores a batch against its classes: `build` chooses one of these, once.

Each has `losses(unit [B, D], ids [B], training=..., **options) -> [B]`, with the options of
`class_sweep.class_losses`.
"""

import functools

import tensorflow as tf

from circle_tf.distribute import collectives, compilation, sharded_variable
from circle_tf.layers import fused_update
from circle_tf.losses.streaming import class_sweep

__all__ = ["AllClasses", "FusedUpdate", "SampledClasses", "ShardedClasses"]


class AllClasses:
    """All classes, on this replica: their cosines held where the budget allows it, else streamed.

    Args:
        class_weights: Keras variable `[C, D]`.
    """

    def __init__(self, class_weights):
        self.class_weights = class_weights

    def losses(self, unit, ids, *, training, **options):
        """Losses `[B]` of unit rows `[B, D]` with own classes `[B]`."""
        del training
        weights = tf.cast(tf.convert_to_tensor(self.class_weights), unit.dtype)
        return class_sweep.class_losses(unit, weights, ids, **options)


class SampledClasses(AllClasses):
    """In training a sample of the classes, the same on all replicas; see `ClassSampler`.

    Args:
        class_weights: Keras variable `[C, D]`.
        sampler: `class_sampling.ClassSampler`.
    """

    def __init__(self, class_weights, sampler):
        super().__init__(class_weights)
        self._sampler = sampler

    def losses(self, unit, ids, *, training, **options):
        """Losses `[B]` of unit rows `[B, D]` with own classes `[B]`."""
        if not training:
            return super().losses(unit, ids, training=False, **options)
        count = self.class_weights.shape[0]
        part = sharded_variable.Part(0, count, count)
        rows, places, mask = self._sampler.draw(ids, collectives.gather_rows(ids), part)
        weights = _gathered(self.class_weights, rows, unit.dtype)
        return class_sweep.class_losses(unit, weights, places, mask=mask, **options)


class ShardedClasses:
    """Each replica's own classes against the global batch, sampled or not.

    Args:
        class_weights: `ShardedVariable` `[C, D]`.
        sampler: None, or `class_sampling.ClassSampler`.

    Attributes:
        optimizer: None, or the `row_updates.SelectedRowUpdates` whose updates are fused.
    """

    optimizer = None

    def __init__(self, class_weights, sampler=None):
        self._class_weights, self._sampler = class_weights, sampler

    def losses(self, unit, ids, *, training, **options):
        """Losses `[B]` of this replica's unit rows `[B, D]` with own classes `[B]`."""
        part = sharded_variable.part_of(self._class_weights)
        places = collectives.gather_rows(ids) - part.first
        if training and _fuses(self.optimizer, unit, self._class_weights):
            return _deferring(
                self.optimizer,
                self._class_weights,
                unit,
                places,
                mask=part.mask,
                sharded=True,
                **options,
            )
        if training and self._sampler is not None:
            rows, places, mask = self._sampler.draw(places, places, part)
            weights = _gathered(self._class_weights, rows, unit.dtype)
        else:
            weights, mask = tf.convert_to_tensor(self._class_weights), part.mask
            weights = tf.cast(weights, unit.dtype)
        return class_sweep.class_losses(unit, weights, places, mask=mask, sharded=True, **options)


class FusedUpdate(AllClasses):
    """All classes; in training their gradient goes to the optimizer a block at a time.

    Attributes:
        optimizer: None, or the `row_updates.SelectedRowUpdates` that trains.
    """

    optimizer = None

    def losses(self, unit, ids, *, training, **options):
        """Losses `[B]` of unit rows `[B, D]` with own classes `[B]`."""
        if not training or not _fuses(self.optimizer, unit, self.class_weights):
            return super().losses(unit, ids, training=training, **options)
        if collectives.replica_context() is not None:
            raise NotImplementedError(
                'CircleHead(fused_update=True) on several replicas wants shards="replicas" too, '
                "whereby each updates its own classes."
            )
        return _deferring(self.optimizer, self.class_weights, unit, ids, **options)


def _fuses(optimizer, unit, class_weights):
    """Whether the update of the step being traced is fused."""
    if optimizer is None:
        return False
    traced_alone = not tf.executing_eagerly() and not compilation.within_xla()
    return traced_alone and unit.dtype == class_weights.dtype == "float32"


def _deferring(optimizer, class_weights, unit, ids, **options):
    defer = functools.partial(optimizer.defer, class_weights)
    variable = sharded_variable.own_copy(class_weights)
    return fused_update.deferring_class_losses(unit, variable, ids, defer, **options)


def _gathered(class_weights, rows, dtype):
    # From the variable itself, whose gradient is sparse then.
    return tf.cast(tf.gather(sharded_variable.own_copy(class_weights), rows), dtype)
