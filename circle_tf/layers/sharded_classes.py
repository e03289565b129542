"""Class-level Circle loss where each replica holds some of the classes (model parallel).

Every replica scores the whole global batch against its own classes. What crosses replicas is
embeddings and a few numbers per example, never class weights or their gradient.
"""

import tensorflow as tf

from circle_tf.distribute import replicas
from circle_tf.losses import circle
from circle_tf.losses.streaming import class_blocks, class_sweep, class_sweeps, class_tiles, tiles

__all__ = ["sharded_class_losses"]


def sharded_class_losses(
    unit,
    part,
    ids,
    *,
    margin,
    gamma,
    detach_weights=True,
    max_bytes=class_sweep.DEFAULT_MAX_BYTES,
    live=None,
    product_dtype=None,
):
    """Circle loss of this replica's examples against the classes of all replicas.

    The same values and gradients as `class_sweep.class_losses` on the whole matrix of class
    weights. The gradient of `part` is complete as it is: it must not be summed over replicas.

    Args:
        unit: `[n, D]` unit rows, this replica's part of the global batch.
        part: `[c, D]` of the same dtype, the classes of this replica.
        ids: int64 `[N]`, own classes of the whole global batch, counted from this replica's first
            class: those of other replicas are not in `0 .. c - 1`.
        margin: float m in -1..1.
        gamma: float scale above 0.
        detach_weights: see `circle_loss`.
        max_bytes: int, budget of this replica for the cosines `[N, c]`; see `class_losses`.
        live: None, or bool `[c]`: classes that count.
        product_dtype: None, or "bfloat16"; see `CircleHead`.

    Returns:
        `[n]` losses in nats.

    Raises:
        ValueError: hyper-parameters out of range, or a budget that cannot hold a block.
        NotImplementedError: a second-order gradient was asked for.

    Example:
        >>> losses = sharded_class_losses(
        ...     tf.constant([[1.0, 0.0]]), tf.eye(2), tf.constant([0], tf.int64),
        ...     margin=0.25, gamma=256.0)
        >>> bool(losses[0] < 1e-3)
        True

    References:
        Sun et al., CVPR 2020, section 3.1. Classes over devices: Deng et al., "ArcFace", CVPR 2019.
    """
    circle.check_hyperparameters(margin=margin, gamma=gamma)
    options = tiles.Options(float(margin), float(gamma), bool(detach_weights))
    everyone, offset = replicas.gather_rows(unit)
    layout = class_blocks.layout_of(
        everyone, part.shape[0], class_sweep.check_max_bytes(max_bytes), product_dtype
    )

    @tf.custom_gradient
    def attach(everyone, part):
        given = (everyone, part, ids, live, options, layout)
        own, negatives, inverse, kept = class_sweeps.forward_part(*given)
        losses, scales = _joined(own, negatives, options)

        def gradient(upstream):
            # A replica's own rows get their upstream there and nowhere else.
            (upstream,) = replicas.total_all([upstream])
            found = class_sweeps.backward(*given, scales, inverse, kept, upstream)
            return class_sweeps.first_order(everyone, part, *found)

        return losses, gradient

    losses = attach(everyone, tf.convert_to_tensor(part))
    return losses[offset : offset + tf.shape(unit)[0]]


def _joined(own, negatives, options):
    """`(losses [N], scales [4, N])` from what each replica's classes have added."""
    (own,) = replicas.total_all([own])
    parts, _ = replicas.gather_rows(negatives[None])
    state = class_tiles.own_state(own, options)
    state = tf.concat([class_tiles.merged(parts, options), state[2:]], 0)
    losses, _, scales = tiles.finish(state, options)
    return losses, scales
