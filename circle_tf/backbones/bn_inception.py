"""Inception with batch normalisation, the net of the retrieval experiments of its time."""

import keras

from circle_tf.backbones import normalization

__all__ = ["bn_inception"]

# A block: filters of its 1 x 1 branch, of (reduction, 3 x 3), of (reduction, 3 x 3, 3 x 3), kind of
# pooling and filters after it; a block without the first branch halves the resolution.
_BLOCKS = (
    (64, (64, 64), (64, 96, 96), "average", 32),
    (64, (64, 96), (64, 96, 96), "average", 64),
    (None, (128, 160), (64, 96, 96), "max", None),
    (224, (64, 96), (96, 128, 128), "average", 128),
    (192, (96, 128), (96, 128, 128), "average", 128),
    (160, (128, 160), (128, 160, 160), "average", 128),
    (96, (128, 192), (160, 192, 192), "average", 128),
    (None, (128, 192), (192, 256, 256), "max", None),
    (352, (192, 320), (160, 224, 224), "average", 128),
    (352, (192, 320), (192, 224, 224), "max", 128),
)


def bn_inception(inputs):
    """Feature maps of BN-Inception.

    Pixels become blue, green, red around the means of ImageNet, as published weights of this net
    want them, and padding is as in the authors' program.

    Args:
        inputs: Keras tensor `[B, H, W, 3]`, pixels in 0..255.

    Returns:
        Keras tensor `[B, H / 32, W / 32, 1024]`, sides rounded up.

    Raises:
        ValueError: images that are not in colour.

    Example:
        >>> bn_inception(keras.Input((224, 224, 3))).shape
        (None, 7, 7, 1024)

    References:
        Ioffe and Szegedy, "Batch Normalization", ICML 2015, figure 5.
    """
    if inputs.shape[-1] != 3:
        raise ValueError(f"The net wants colour images [H, W, 3]; found {tuple(inputs.shape[1:])}.")
    maps = keras.applications.imagenet_utils.preprocess_input(inputs, mode="caffe")
    maps = _halved(_conv(maps, 64, size=7, strides=2))
    maps = _halved(_conv(_conv(maps, 64, size=1), 192))
    for block in _BLOCKS:
        maps = _block(maps, *block)
    return maps


def _block(maps, single, simple, double, pooling, pooled):
    strides = 1 if single else 2
    branches = [_conv(maps, single, size=1)] if single else []
    branches.append(_conv(_conv(maps, simple[0], size=1), simple[1], strides=strides))
    deep = _conv(_conv(maps, double[0], size=1), double[1])
    branches.append(_conv(deep, double[2], strides=strides))
    around = _halved(maps) if strides == 2 else _pooled(maps, pooling)
    branches.append(_conv(around, pooled, size=1) if pooled else around)
    return keras.layers.Concatenate()(branches)


def _pooled(maps, kind):
    if kind == "max":
        return keras.layers.MaxPooling2D(3, 1, padding="same")(maps)
    # The zeros around the maps count.
    return keras.layers.AveragePooling2D(3, 1)(keras.layers.ZeroPadding2D(1)(maps))


def _halved(maps):
    return keras.layers.MaxPooling2D(3, 2, padding="same")(maps)


def _conv(maps, filters, *, size=3, strides=1):
    if size > 1:
        maps = keras.layers.ZeroPadding2D(size // 2)(maps)
    # Batch norm subtracts the mean: a bias before it would do nothing.
    maps = keras.layers.Conv2D(filters, size, strides, use_bias=False)(maps)
    maps = normalization.FusedBatchNormalization(momentum=0.9, epsilon=1e-5)(maps)
    return keras.layers.ReLU()(maps)
