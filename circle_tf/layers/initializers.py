"""Initial values of class weights, in the memory of the weights alone."""

import math

import keras
import tensorflow as tf

from circle_tf.utils import sizes

__all__ = ["NormalRows"]

_BLOCK_BYTES = sizes.BLOCK_BYTES


class NormalRows(keras.initializers.RandomNormal):
    """Normal numbers of standard deviation `D ** -0.5`, so that rows `[D]` are about unit long.

    Matrices of more than 32 MiB are drawn some rows at a time: Keras' own initializer holds three
    times the matrix.

    Args:
        dim: int D.
        seed: as of `keras.initializers.RandomNormal`.

    Example:
        >>> rows = NormalRows(4, seed=0)((1000, 4), dtype="float32")
        >>> rows.shape.as_list(), abs(float(tf.math.reduce_std(rows)) - 0.5) < 0.02
        ([1000, 4], True)
    """

    def __init__(self, dim, seed=None):
        super().__init__(stddev=dim**-0.5, seed=seed)
        self.dim = dim

    def __call__(self, shape, dtype=None, **kwargs):
        """`[..., D]` numbers, the same at each call."""
        dtype = tf.as_dtype(dtype or keras.backend.floatx())
        count = math.prod(shape[:-1])
        block = max(1, _BLOCK_BYTES // (dtype.size * self.dim))
        if count <= block or not isinstance(self.seed, int):
            return super().__call__(shape, dtype=dtype.name, **kwargs)
        rows = _blocks(tf.constant(self.seed % 2**31), count, block, self.dim, dtype)
        return rows if len(shape) == 2 else tf.reshape(rows, shape)

    def get_config(self):
        """The constructor's arguments."""
        return {"dim": self.dim, "seed": self.seed}


@tf.function(autograph=False)
def _blocks(seed, count, block, dim, dtype):
    def draw(start, rows):
        size = tf.minimum(block, count - start)
        drawn = tf.random.stateless_normal([size, dim], [seed, start], dtype=dtype) * dim**-0.5
        places = start + tf.range(size)
        # tf.tensor_scatter_nd_update would copy all rows when the loop begins.
        return start + block, tf.raw_ops.InplaceUpdate(x=rows, i=places, v=drawn)

    # Zeros of known shape would be folded into a constant, and that copied.
    state = (tf.constant(0), tf.raw_ops.Empty(shape=[count, dim], dtype=dtype))
    return tf.while_loop(lambda start, _: start < count, draw, state, parallel_iterations=1)[1]
