"""The float policy, safe normalisation and masked logsumexp: the one home of numerical care."""

import tensorflow as tf

__all__ = [
    "ZERO_ROW",
    "as_loss_float",
    "is_zero_row",
    "log1p_sum_exp",
    "masked_logsumexp",
    "positive_mean",
    "safe_normalize",
]

# Rows whose largest magnitude is below this are zero rows: dividing by less would push the
# gradient (which grows as 1 / norm) out of float32's range.
ZERO_ROW = 1e-30


def as_loss_float(values):
    """Casts to the dtype in which losses are computed: float64 stays, all else is float32.

    Logits scaled by gamma reach several hundred; half precision has a step of 0.25 or more
    there, so the loss never follows the layers' compute dtype.

    Args:
        values: `[...]` tensor or array of any real dtype.

    Returns:
        `[...]` tensor, float64 if `values` are float64 and float32 otherwise.

    Example:
        >>> as_loss_float(tf.constant([1.0], tf.bfloat16)).dtype.name
        'float32'
    """
    values = tf.convert_to_tensor(values)
    if values.dtype == tf.float64:
        return values
    return tf.cast(values, tf.float32)


def safe_normalize(rows):
    """Scales each row to unit Euclidean length, also where squaring would over- or underflow.

    `z = (x / max|x|) / norm(x / max|x|)`. The largest magnitude is divided out first, so that
    norms of 1e25 and 1e-25 keep their direction in float32.

    Args:
        rows: `[..., D]` embeddings of any real dtype, any scale.

    Returns:
        `[..., D]` unit rows, float32 (float64 if `rows` are). A row of zeros (largest magnitude
        below 1e-30) stays zero and gets a zero gradient. A row that holds NaN or inf is NaN.

    Example:
        >>> safe_normalize([[3.0, 4.0], [3e25, 4e25], [0.0, 0.0]]).numpy().round(2).tolist()
        [[0.6..., 0.8...], [0.6..., 0.8...], [0.0, 0.0]]
    """
    rows = as_loss_float(rows)
    largest = tf.stop_gradient(tf.reduce_max(tf.abs(rows), axis=-1, keepdims=True))
    is_zero = is_zero_row(largest)
    scaled = rows / tf.where(is_zero, tf.ones_like(largest), largest)
    square = tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True)
    unit = scaled * tf.math.rsqrt(tf.where(is_zero, tf.ones_like(square), square))
    return tf.where(is_zero, tf.zeros_like(unit), unit)


def is_zero_row(largest):
    """Whether rows are zero rows, from their largest magnitudes.

    Args:
        largest: float tensor, `tf.reduce_max(tf.abs(rows), axis=-1)`; XLA's is -inf for a row of
            NaN alone, which is no zero row.

    Returns:
        bool tensor of its shape.

    Example:
        >>> is_zero_row(tf.constant([0.0, 1e-35, 1e-3, -float("inf"), float("nan")])).numpy()
        array([ True,  True, False, False, False])
    """
    return (largest < ZERO_ROW) & (largest >= 0)


def masked_logsumexp(logits, mask):
    """`log(sum_j exp(logits_j))` over the entries of each row where `mask` holds.

    Args:
        logits: `[A, K]` float, in nats.
        mask: `[A, K]` bool.

    Returns:
        `[A]` of `logits`' dtype, in nats. Rows without an entry give 0 with a zero gradient, not
        `-inf`: tell them apart by the mask.

    Example:
        >>> masked_logsumexp([[0.0, 0.0, 9.0]], [[True, True, False]]).numpy().tolist()
        [0.6931...]
    """
    logits = tf.convert_to_tensor(logits)
    any_entry = tf.reduce_any(mask, axis=-1, keepdims=True)
    lowest = tf.constant(logits.dtype.min, logits.dtype)
    highest = tf.reduce_max(tf.where(mask, logits, lowest), axis=-1, keepdims=True)
    highest = tf.stop_gradient(tf.where(any_entry, highest, tf.zeros_like(highest)))
    shifted = tf.where(mask, logits - highest, tf.zeros_like(logits))
    total = tf.reduce_sum(tf.exp(shifted) * tf.cast(mask, logits.dtype), axis=-1, keepdims=True)
    total = tf.where(any_entry, total, tf.ones_like(total))
    return tf.squeeze(tf.math.log(total) + highest, axis=-1)


def log1p_sum_exp(logits, mask):
    """`log(1 + sum_j exp(logits_j))` over the entries of each row where `mask` holds.

    Args:
        logits: `[A, K]` float, in nats.
        mask: `[A, K]` bool.

    Returns:
        `[A]` of `logits`' dtype, in nats; 0 for rows without an entry.

    Example:
        >>> log1p_sum_exp([[0.0, 9.0]], [[True, False]]).numpy().tolist()
        [0.6931...]
    """
    total = tf.math.softplus(masked_logsumexp(logits, mask))
    return tf.where(tf.reduce_any(mask, axis=-1), total, tf.zeros_like(total))


def positive_mean(total, count):
    """`total / count`, and 0 (not NaN) where `count` is 0, but never hiding a NaN in `total`.

    Args:
        total: `[...]` float.
        count: `[...]`, at least 0.

    Returns:
        `[...]` of `total`'s dtype.

    Example:
        >>> float(positive_mean(6.0, 3)), float(positive_mean(0.0, 0))
        (2.0, 0.0)
    """
    total = tf.convert_to_tensor(total)
    return total / tf.maximum(tf.cast(count, total.dtype), 1)
