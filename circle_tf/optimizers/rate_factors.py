"""Learning rates of their own for some variables of a Keras optimizer."""

import numbers
from typing import NamedTuple

import tensorflow as tf

from circle_tf.optimizers import extension

__all__ = ["Rate", "RateFactors", "of_layers", "with_rates"]


class Rate(NamedTuple):
    """How a variable is updated: by the optimizer's learning rate times `factor`.

    Args:
        factor: float, 0 or more.
        first_step: int, the optimizer's iterations at the variable's first update.
    """

    factor: float = 1.0
    first_step: int = 0


def with_rates(optimizer, rates, *, owner=""):
    """An optimizer with learning rates of their own for some variables.

    The factor scales the update and the weight decay: to scale gradients would change nothing for
    Adam and its like. Where a variable's updates begin later, bias is corrected by the number of
    its own: by that of all, Adam's first updates would be up to 6 times as large as meant.

    Args:
        optimizer: Keras optimizer; of a `LossScaleOptimizer` the inner one is meant.
        rates: pairs (Keras variable, `Rate`); where a variable has several, they multiply.
        owner: str, whose rates these are: the owner's before are forgotten, and those of all where
            the optimizer is a plain one.

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
    if not isinstance(extension.inner_optimizer(optimizer), RateFactors):
        optimizer = extension.extended(optimizer, RateFactors)
        extension.inner_optimizer(optimizer).forget_rates()
    extension.inner_optimizer(optimizer).set_rates(rates, owner=owner)
    return optimizer


def of_layers(layers, factors):
    """The rates of layers by their names, for `with_rates`.

    Args:
        layers: Keras layers.
        factors: dict of a layer's name to the factor of its learning rate.

    Returns:
        list of pairs (Keras variable, `Rate`).

    Raises:
        ValueError: no layer of that name with weights that train, a factor that is not above 0.

    Example:
        >>> of_layers([], {"classes": 10.0})
        Traceback (most recent call last):
            ...
        ValueError: learning_rate_factors: no layer 'classes' with weights that train. ...
    """
    rates = []
    for name, factor in factors.items():
        is_number = isinstance(factor, numbers.Real) and not isinstance(factor, bool)
        if not is_number or not 0 < factor < float("inf"):
            raise ValueError(
                f"learning_rate_factors: that of {name!r} must be a number above 0; found "
                f"{factor!r}. To train without a layer set its trainable = False."
            )
        named = [layer for layer in layers if layer.name == name]
        found = {id(v): v for layer in named for v in layer.trainable_variables}
        if not found:
            known = ", ".join(layer.name for layer in layers if layer.trainable_variables)
            raise ValueError(
                f"learning_rate_factors: no layer {name!r} with weights that train. Those with "
                f"such weights: {known or 'none'}."
            )
        rates += [(variable, Rate(float(factor))) for variable in found.values()]
    return rates


class RateFactors:
    """Methods of a Keras optimizer, before its own: each variable at its `Rate`."""

    def forget_rates(self):
        """Forgets the rates of all owners."""
        # In an object, since Keras tracks what lists and dicts of its own hold.
        vars(self)["_rates"] = _Rates()

    def set_rates(self, rates, *, owner):
        """As `with_rates`."""
        pairs = [(self._var_key(variable), rate) for variable, rate in rates]
        self._rates.set(pairs, owner=owner)

    def finalize_variable_values(self, var_list):
        """As Keras', of all variables: averages pair with these, also where some are frozen."""
        super().finalize_variable_values(self._trainable_variables)

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

    # The rate that it is given has the factor: an update by rows asks once more, for each block.
    def _rate_of(self, variable):
        return Rate()


class _Rates:
    """The rates of all owners, and `by_key` those of each variable together."""

    def __init__(self):
        self._of_owners, self.by_key = {}, {}

    def set(self, pairs, *, owner):
        self._of_owners[owner] = pairs
        self.by_key = {}
        for key, rate in (pair for pairs in self._of_owners.values() for pair in pairs):
            before = self.by_key.get(key, Rate())
            self.by_key[key] = Rate(
                before.factor * rate.factor, max(before.first_step, rate.first_step)
            )
