"""Class-level Circle loss over blocks of classes: exact, within a memory budget.

`losses.class_losses` states the maths on a whole `[B, C]` matrix of cosines. Here the matrix exists
a block of classes at a time (`class_sweeps`).
"""

import tensorflow as tf

from circle_tf.losses import circle
from circle_tf.losses.streaming import class_blocks, class_sweeps, tiles
from circle_tf.utils import checks

__all__ = ["DEFAULT_MAX_BYTES", "check_max_bytes", "class_losses"]

DEFAULT_MAX_BYTES = 2**28


def class_losses(
    unit,
    class_weights,
    ids,
    *,
    margin,
    gamma,
    detach_weights=True,
    max_bytes=DEFAULT_MAX_BYTES,
    live=None,
    product_dtype=None,
):
    """Circle loss of each example against class weights of any length.

    The same values and gradients as `circle_loss` on `unit @ normalize(class_weights).T`.

    Args:
        unit: `[B, D]` unit rows, float32 or float64.
        class_weights: `[C, D]` of the same dtype, C of 2 or more.
        ids: int64 `[B]`, the own classes; the result for an id outside `0 .. C - 1` is undefined.
        margin: float m in -1..1.
        gamma: float scale above 0.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget for cosines: within it they are kept for the gradient, above it they
            are computed twice, a block at a time (so too where B is unknown when traced). Where C
            is unknown then, it does not count.
        live: None, or bool `[C]`: classes that count; own classes must be among them.
        product_dtype: None, or "bfloat16"; see `CircleHead`.

    Returns:
        `[B]` losses in nats.

    Raises:
        ValueError: hyper-parameters out of range, or a budget that cannot hold a block.
        NotImplementedError: a second-order gradient was asked for.

    Example:
        >>> losses = class_losses(
        ...     tf.constant([[1.0, 0.0]]), tf.eye(2), tf.constant([0], tf.int64),
        ...     margin=0.25, gamma=256.0)
        >>> bool(losses[0] < 1e-3)
        True

    References:
        Sun et al., CVPR 2020, section 3.1 (class-level labels), eq. 6 and 9.
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    options = tiles.Options(float(margin), float(gamma), bool(detach_weights))
    unit, class_weights = tf.convert_to_tensor(unit), tf.convert_to_tensor(class_weights)
    layout = class_blocks.layout_of(
        unit, class_weights.shape[0], check_max_bytes(max_bytes), product_dtype
    )

    @tf.custom_gradient
    def attach(unit, class_weights):
        losses, scales, inverse, kept = class_sweeps.forward(
            unit, class_weights, ids, live, options, layout
        )

        def gradient(upstream):
            given = (unit, class_weights, ids, live, options, layout)
            found = class_sweeps.backward(*given, scales, inverse, kept, upstream)
            return class_sweeps.first_order(unit, class_weights, *found)

        return losses, gradient

    return attach(unit, class_weights)


def check_max_bytes(value):
    """The int of 1 or more that a budget is.

    Args:
        value: what was given.

    Returns:
        int.

    Raises:
        ValueError: anything else.

    Example:
        >>> check_max_bytes(2**20)
        1048576
    """
    return checks.whole_number(value, "max_bytes", least=1)
