"""What holds while one step of one replica runs or is traced: one context, its fields listed here.

| field | entered by | read by |
|---|---|---|
| `compiled` | training/steps.py | `compilation.call_compiled`: whether XLA compiles its parts |
| `memo` | training/steps.py | `memoized`: what was computed in this step already |
| `training` | `EmbeddingModel`, in evaluation and its loss | memories of losses: whether to fill |
| `sample_weight` | `EmbeddingModel`'s steps | `LossLayer`: weights of the examples' losses |
| `layer_losses` | training/steps.py | `EmbeddingModel.losses`: those of the compiled forward pass |

Keras calls losses, and layers, without telling them any of it.
"""

import contextlib
import threading

__all__ = ["current", "entered", "memoized"]


class _Context(threading.local):
    """Replicas trace in threads of their own."""

    compiled = False
    memo = None
    training = None
    sample_weight = None
    layer_losses = None


_CONTEXT = _Context()


def current():
    """The context of the step at hand, with the fields listed above.

    Returns:
        Object with these attributes, at their defaults outside of steps.

    Example:
        >>> current().compiled, current().training
        (False, None)
    """
    return _CONTEXT


@contextlib.contextmanager
def entered(**fields):
    """Within it, the context's fields have these values.

    Args:
        **fields: by their names, some of those listed above; the others stay.

    Yields:
        None.

    Example:
        >>> with entered(training=True):
        ...     current().training
        True
    """
    before = {name: getattr(_CONTEXT, name) for name in fields}
    vars(_CONTEXT).update(fields)
    try:
        yield
    finally:
        vars(_CONTEXT).update(before)


def memoized(make, *inputs):
    """What `make()` returns, called only once in a step for the same inputs.

    The loss and each monitor look at the same global batch: it is gathered once.

    Args:
        make: function without arguments.
        *inputs: the objects on which its result depends, compared by identity.

    Returns:
        What `make` returned.

    Example:
        >>> with entered(memo={}):
        ...     key = object()
        ...     memoized(lambda: 3, key), memoized(lambda: 4, key)
        (3, 3)
        >>> memoized(lambda: 4, key)
        4
    """
    memo = _CONTEXT.memo
    if memo is None:
        return make()
    key = tuple(id(value) for value in inputs)
    if key not in memo:
        # The inputs are kept, so that none of their ids can pass to another object.
        memo[key] = (make(), inputs)
    return memo[key][0]
