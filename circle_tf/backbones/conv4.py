"""Four blocks of convolution, a small net for small images."""

import keras

from circle_tf.backbones import normalization

__all__ = ["WIDE", "conv4"]

_FILTERS = (32, 64, 128, 256)
WIDE = tuple(2 * filters for filters in _FILTERS)


def conv4(inputs, *, filters=_FILTERS):
    """Feature maps of four times 3 x 3 convolution, batch norm, 2 x 2 max-pool, ReLU.

    Args:
        inputs: Keras tensor `[B, H, W, C]`, pixels in 0..255, scaled to 0..1 within.
        filters: of the four blocks.

    Returns:
        Keras tensor `[B, H / 16, W / 16, filters[-1]]`, sides rounded up.

    Example:
        >>> conv4(keras.Input((32, 32, 1))).shape
        (None, 2, 2, 256)
    """
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    for count in filters:
        # Batch norm subtracts the mean: a bias before it would do nothing.
        maps = keras.layers.Conv2D(count, 3, padding="same", use_bias=False)(maps)
        # Keras' 0.99 lags behind the weights in short runs, which costs a third of the recall.
        maps = normalization.FusedBatchNormalization(momentum=0.9)(maps)
        # Padding "same" lets images of 8 x 8 through. ReLU after pooling gives the same numbers
        # as before it, for a quarter of the work.
        maps = keras.layers.MaxPooling2D(padding="same")(maps)
        maps = keras.layers.ReLU()(maps)
    return maps
