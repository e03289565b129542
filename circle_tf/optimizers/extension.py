"""Keras optimizers with methods overridden, beside the plain object and on the same state."""

import functools

import keras

__all__ = ["extended", "inner_optimizer", "plain", "subclass"]


def extended(optimizer, mixin):
    """An optimizer of a subclass of the given one's class, on the given one's state.

    Both objects have one `__dict__`: whatever is made, assigned or set by one is there for the
    other: learning rate, iterations, moments. The given object keeps its class, and so its methods.
    A copy by `from_config`, and what is saved, is of the plain class.

    Args:
        optimizer: Keras optimizer. Of a `LossScaleOptimizer` the inner one is extended.
        mixin: class of the overriding methods.

    Returns:
        Keras optimizer; the given one where it is one of `mixin` already.

    Example:
        >>> class Halved:
        ...     def update_step(self, gradient, variable, learning_rate):
        ...         super().update_step(gradient / 2, variable, learning_rate)
        >>> given, variable = keras.optimizers.SGD(1.0), keras.Variable([1.0])
        >>> halved = extended(given, Halved)
        >>> halved.apply([keras.ops.array([0.5])], [variable])
        >>> float(variable[0]), int(given.iterations.numpy()), type(given) is keras.optimizers.SGD
        (0.75, 1, True)
    """
    if isinstance(inner_optimizer(optimizer), mixin):
        return optimizer
    return _on_state_of(optimizer, subclass(type(optimizer), mixin))


def plain(optimizer):
    """The optimizer without what `extended` gave it, on the same state.

    Args:
        optimizer: Keras optimizer, or anything else, which is returned.

    Returns:
        Keras optimizer of a class of its own module.

    Example:
        >>> given = keras.optimizers.SGD(1.0)
        >>> type(plain(extended(given, type("Mixin", (), {})))) is keras.optimizers.SGD
        True
    """
    of_class = getattr(type(optimizer), "_plain_class", None)
    return optimizer if of_class is None else _on_state_of(optimizer, of_class)


def inner_optimizer(optimizer):
    """The optimizer that updates weights, within a `LossScaleOptimizer` or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@functools.cache
def subclass(base, mixin):
    """The subclass of an optimizer's class with the methods of a mixin before its own.

    Args:
        base: class of a Keras optimizer. Of a `LossScaleOptimizer` the inner one gets the methods.
        mixin: class.

    Returns:
        class, of the name and module of `base`.
    """
    of_class = getattr(base, "_plain_class", base)
    own = {"_plain_class": of_class, "from_config": of_class.from_config}
    own |= {name: getattr(base, name) for name in ("__doc__", "__module__", "__qualname__")}
    if not issubclass(base, keras.optimizers.LossScaleOptimizer):
        return type(base.__name__, (mixin, base), own)
    given = getattr(base, "inner_optimizer", property(lambda self: vars(self)["inner_optimizer"]))
    own["inner_optimizer"] = property(lambda self: extended(given.fget(self), mixin))
    own["get_config"] = lambda self: plain(self).get_config()
    return type(base.__name__, (base,), own)


def _on_state_of(optimizer, of_class):
    found = object.__new__(of_class)
    object.__setattr__(found, "__dict__", vars(optimizer))  # Keras' own would track it.
    return found
