"""Learning rates of their own for some variables of a Keras optimizer."""

from typing import NamedTuple

import tensorflow as tf

from circle_tf.optimizers import extension

__all__ = ["Rate", "RateFactors", "with_rates"]


class Rate(NamedTuple):
    """How a variable is updated: by the optimizer's learning rate times `factor`.

    Args:
        factor: float, 0 or more.
        first_step: int, the optimizer's iterations at the variable's first update.
    """

    factor: float = 1.0
    first_step: int = 0


def with_rates(optimizer, rates):
    """An optimizer with learning rates of their own for some variables.

    The factor scales the update and the weight decay: to scale gradients would change nothing for
    Adam and its like. Where a variable's updates begin later, bias is corrected by the number of
    its own: by that of all, Adam's first updates would be up to 6 times as large as meant.

    Args:
        optimizer: Keras optimizer; of a `LossScaleOptimizer` the inner one is meant.
        rates: pairs (Keras variable, `Rate`); those before are forgotten.

    Returns:
        Keras optimizer on the state of the given one, as of `extension.extended`.

    Example:
        >>> import keras
        >>> one, other = keras.Variable([1.0]), keras.Variable([1.0])
        >>> optimizer = with_rates(keras.optimizers.SGD(1.0), [(other, Rate(0.1))])
        >>> optimizer.apply([tf.constant([0.5]), tf.constant([0.5])], [one, other])
        >>> float(one.numpy()[0]), round(float(other.numpy()[0]), 3)
        (0.5, 0.95)
    """
    optimizer = extension.extended(optimizer, RateFactors)
    extension.inner_optimizer(optimizer).set_rates(rates)
    return optimizer


class RateFactors:
    """Methods of a Keras optimizer, before its own: each variable at its `Rate`."""

    def set_rates(self, rates):
        """Forgets the rates before; `rates` as of `with_rates`."""
        # In an object, since Keras tracks what lists and dicts of its own hold.
        vars(self)["_rates"] = _Rates(
            {self._var_key(variable): rate for variable, rate in rates if rate != Rate()}
        )

    def update_step(self, gradient, variable, learning_rate):
        """As Keras', at the variable's rate."""
        rate = self._rate_of(variable)
        if rate == Rate():
            return super().update_step(gradient, variable, learning_rate)
        scaled = tf.cast(learning_rate, tf.float32) * rate.factor
        return super(RateFactors, self._at(rate)).update_step(gradient, variable, scaled)

    def _apply_weight_decay(self, variables):
        groups = {}
        for variable in variables:
            groups.setdefault(self._rate_of(variable), []).append(variable)
        for rate, group in groups.items():
            super(RateFactors, self._at(rate))._apply_weight_decay(group)

    def _rate_of(self, variable):
        return self._rates.by_key.get(self._var_key(variable), Rate())

    def _at(self, rate):
        """This optimizer, on the same state, as a variable of that rate sees it."""
        if rate == Rate():
            return self
        seen = object.__new__(extension.subclass(type(self), _SeenAtRate))
        vars(seen).update(vars(self), _whole=self, _rate=rate)
        return seen


class _SeenAtRate:
    @property
    def iterations(self):
        return self._whole.iterations - self._rate.first_step

    def _get_current_learning_rate(self):
        return self._whole._get_current_learning_rate() * self._rate.factor


class _Rates:
    def __init__(self, by_key):
        self.by_key = by_key
