"""The residual nets of face recognition, which keep the resolution longer than others."""

import keras

from circle_tf.backbones import normalization

__all__ = ["BLOCKS", "iresnet"]

# Blocks of each stage.
BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
_FILTERS = (64, 128, 256, 512)


def iresnet(inputs, name):
    """Feature maps of an "improved" residual net.

    A block is batch norm, convolution, batch norm, PReLU, convolution, batch norm; nothing comes
    after the sum, and the second convolution has the stride. The stem keeps the resolution.

    Args:
        inputs: Keras tensor `[B, H, W, C]`, pixels in 0..255, scaled to -1..1 within.
        name: str, of `BLOCKS`.

    Returns:
        Keras tensor `[B, H / 16, W / 16, 512]`, sides rounded up.

    Example:
        >>> iresnet(keras.Input((112, 112, 3)), "iresnet18").shape
        (None, 7, 7, 512)

    References:
        Deng et al., "ArcFace", CVPR 2019, section 3.1. Han et al., "Deep Pyramidal Residual
        Networks", CVPR 2017 (the block).
    """
    maps = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    maps = _prelu(_norm(_conv(maps, 64, size=3)))
    for filters, blocks in zip(_FILTERS, BLOCKS[name], strict=True):
        for number in range(blocks):
            maps = _block(maps, filters, strides=1 if number else 2)
    return _norm(maps)


def _block(maps, filters, *, strides):
    residual = _prelu(_norm(_conv(_norm(maps), filters, size=3)))
    residual = _norm(_conv(residual, filters, size=3, strides=strides))
    if strides != 1 or maps.shape[-1] != filters:
        maps = _norm(_conv(maps, filters, size=1, strides=strides))
    return keras.layers.Add()([residual, maps])


def _conv(maps, filters, *, size, strides=1):
    # Batch norm subtracts the mean: a bias before it would do nothing.
    layer = keras.layers.Conv2D(filters, size, strides, padding="same", use_bias=False)
    return layer(maps)


def _norm(maps):
    return normalization.FusedBatchNormalization(momentum=0.9, epsilon=1e-5)(maps)


def _prelu(maps):
    slope = keras.initializers.Constant(0.25)
    return keras.layers.PReLU(slope, shared_axes=[1, 2])(maps)
