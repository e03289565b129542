"""Backbones by name: from raw pixels 0..255 to features, with the preprocessing inside the model.

This is the only module that imports keras_cv, and only when one of its backbones or augmentation
layers is asked for.
"""

import difflib
import functools
import importlib
import os

import keras

from circle_tf import compat
from circle_tf.backbones import bn_inception, iresnet, mgn, normalization

__all__ = ["build", "import_keras_cv", "names"]

_CONV4_FILTERS = (32, 64, 128, 256)

# name: (blocks of each stack, kind of block); the arguments of keras-cv's presets of these names.
_RESNETS = {
    "resnet18_v2": ([2, 2, 2, 2], "basic_block"),
    "resnet34_v2": ([3, 4, 6, 3], "basic_block"),
    "resnet50_v2": ([3, 4, 6, 3], "block"),
    "resnet101_v2": ([3, 4, 23, 3], "block"),
    "resnet152_v2": ([3, 8, 36, 3], "block"),
}

_EFFICIENTNET_B0 = {
    "stackwise_kernel_sizes": [3] * 6,
    "stackwise_num_repeats": [1, 2, 2, 3, 5, 8],
    "stackwise_input_filters": [32, 16, 32, 48, 96, 112],
    "stackwise_output_filters": [16, 32, 48, 96, 112, 192],
    "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
    "stackwise_squeeze_and_excite_ratios": [0, 0, 0, 0.25, 0.25, 0.25],
    "stackwise_strides": [1, 2, 2, 2, 1, 2],
    "stackwise_conv_types": ["fused"] * 3 + ["unfused"] * 3,
}
_EFFICIENTNET_S = {
    **_EFFICIENTNET_B0,
    "stackwise_num_repeats": [2, 4, 4, 6, 9, 15],
    "stackwise_input_filters": [24, 24, 48, 64, 128, 160],
    "stackwise_output_filters": [24, 48, 64, 128, 160, 256],
}
# name: (stages, width and depth relative to them).
_EFFICIENTNETS = {
    "efficientnetv2_b0": (_EFFICIENTNET_B0, 1.0, 1.0),
    "efficientnetv2_b1": (_EFFICIENTNET_B0, 1.0, 1.1),
    "efficientnetv2_b2": (_EFFICIENTNET_B0, 1.1, 1.2),
    "efficientnetv2_b3": (_EFFICIENTNET_B0, 1.2, 1.4),
    "efficientnetv2_s": (_EFFICIENTNET_S, 1.0, 1.0),
}

_MOBILENETS = {
    "mobilenet_v3_small": {
        "stackwise_expansion": [1, 72 / 16, 88 / 24, 4, 6, 6, 3, 3, 6, 6, 6],
        "stackwise_filters": [16, 24, 24, 40, 40, 40, 48, 48, 96, 96, 96],
        "stackwise_kernel_size": [3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 5],
        "stackwise_stride": [2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1],
        "stackwise_se_ratio": [0.25, None, None] + [0.25] * 8,
        "stackwise_activation": ["relu"] * 3 + ["hard_swish"] * 8,
    },
    "mobilenet_v3_large": {
        "stackwise_expansion": [1, 4, 3, 3, 3, 3, 6, 2.5, 2.3, 2.3, 6, 6, 6, 6, 6],
        "stackwise_filters": [16, 24, 24, 40, 40, 40, 80, 80, 80, 80, 112, 112, 160, 160, 160],
        "stackwise_kernel_size": [3, 3, 3, 5, 5, 5, 3, 3, 3, 3, 3, 3, 5, 5, 5],
        "stackwise_stride": [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1],
        "stackwise_se_ratio": [None] * 3 + [0.25] * 3 + [None] * 4 + [0.25] * 5,
        "stackwise_activation": ["relu"] * 6 + ["hard_swish"] * 9,
    },
}

# Modules of keras.applications, each with its own preprocess_input.
_APPLICATION_MODULES = (
    "convnext",
    "densenet",
    "efficientnet",
    "efficientnet_v2",
    "inception_resnet_v2",
    "inception_v3",
    "mobilenet",
    "mobilenet_v2",
    "mobilenet_v3",
    "nasnet",
    "resnet",
    "resnet_v2",
    "vgg16",
    "vgg19",
    "xception",
)

# Feature maps of our own nets.
_OWN = {
    "conv4": lambda inputs: _conv4(inputs),
    "bn_inception": bn_inception.bn_inception,
    **{name: functools.partial(iresnet.iresnet, name=name) for name in iresnet.BLOCKS},
}

_POOLING = {
    "average": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}


def build(name, input_shape, *, pooling=None, weights=None):
    """A backbone as a Keras model from raw pixels to features.

    The model scales pixels itself, as its kind of net wants them (0..1 for `conv4` and keras-cv,
    -1..1 for `iresnet`, the application's own `preprocess_input` for keras.applications), so that
    training and serving cannot differ. Weights start at random, or come from a file: nothing is
    downloaded.

    Args:
        name: str, one of `names()`: `conv4`, `bn_inception`, `mgn` (see `mgn.py`),
            `iresnet34` and its like (see `iresnet.py`), keras-cv's ResNetV2, EfficientNetV2
            and MobileNetV3 in lower case (`resnet18_v2`), or a function of `keras.applications`
            (`ResNet50`).
        input_shape: `(H, W, C)` of the images, pixels.
        pooling: how feature maps become features: `average`, `max` or `flatten`. Default:
            `flatten` for `conv4` and `iresnet`, `average` for the others; `mgn` has its own.
        weights: path of a file with the backbone's weights (`.weights.h5`; for keras.applications
            also the `_notop.h5` files; for `mgn` those of ResNet50), or None.

    Returns:
        keras.Model from pixels `[B, H, W, C]` in 0..255 to features `[B, F]`.

    Raises:
        ValueError: unknown name or pooling, unsuitable input shape.
        FileNotFoundError: no file at `weights`.
        ImportError: a keras-cv backbone is asked for and keras-cv is not installed.

    Example:
        >>> build("conv4", (32, 32, 1)).output_shape
        (None, 1024)
    """
    compat.require_keras_3("backbones.build")
    _check(name, input_shape, pooling, weights)
    inputs = keras.Input(tuple(input_shape), name="pixels")
    if name == "mgn":
        features = mgn.multi_granularity(inputs, weights=weights)
        return keras.Model(inputs, features, name=name)
    if name in _OWN:
        maps = _own(inputs, name, weights=weights)
    elif name in _applications():
        maps = _application(inputs, name, weights=weights)
    else:
        maps = _keras_cv(inputs, name, weights=weights)
    flat = name == "conv4" or name in iresnet.BLOCKS
    pooling = pooling or ("flatten" if flat else "average")
    return keras.Model(inputs, _POOLING[pooling](name="features")(maps), name=name)


def names():
    """Names that `build` knows, sorted.

    Example:
        >>> "conv4" in names() and "resnet18_v2" in names() and "ResNet50" in names()
        True
    """
    of_keras_cv = (*_RESNETS, *_EFFICIENTNETS, *_MOBILENETS)
    return sorted(["mgn", *_OWN, *of_keras_cv, *_applications()])


def import_keras_cv():
    """The keras_cv package, imported now; this also lets Keras load models that hold its layers.

    Raises:
        ImportError: it is not installed; the message names the extra to install.

    Example:
        >>> import_keras_cv().__name__
        'keras_cv'
    """
    try:
        return importlib.import_module("keras_cv")
    except ImportError as error:
        raise ImportError(
            "This needs keras-cv (backbones, augmentation), which cannot be imported "
            f"({error}). Install it with: pip install 'circle-tf[train]'"
        ) from error


def _check(name, input_shape, pooling, weights):
    if name not in names():
        close = difflib.get_close_matches(str(name).lower(), [n.lower() for n in names()], n=1)
        meant = [known for known in names() if known.lower() in close]
        hint = f"Did you mean {meant[0]!r}?" if meant else f"Known: {', '.join(names())}."
        raise ValueError(f"There is no backbone {name!r}. {hint}")
    if len(input_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(
            f"input_shape must be (height, width, channels) in pixels; found {input_shape!r}."
        )
    if name == "mgn" and pooling is not None:
        raise ValueError(f"mgn has its own pooling: leave pooling None; found {pooling!r}.")
    if pooling is not None and pooling not in _POOLING:
        raise ValueError(f"pooling must be one of {', '.join(_POOLING)}; found {pooling!r}.")
    if weights is not None and not os.path.isfile(weights):
        raise FileNotFoundError(
            f"There is no weights file {weights!r}. Give the path of a file; pretrained weights "
            "are not downloaded."
        )


def _own(inputs, name, *, weights):
    maps = _OWN[name](inputs)
    if weights is not None:
        keras.Model(inputs, maps).load_weights(weights)
    return maps


def _conv4(inputs):
    """Four times 3 x 3 convolution, batch norm, 2 x 2 max-pool, ReLU."""
    maps = keras.layers.Rescaling(1 / 255)(inputs)
    for filters in _CONV4_FILTERS:
        # Batch norm subtracts the mean: a bias before it would do nothing.
        maps = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(maps)
        # Keras' 0.99 lags behind the weights in short runs, which costs a third of the recall.
        maps = normalization.FusedBatchNormalization(momentum=0.9)(maps)
        # Padding "same" lets images of 8 x 8 through. ReLU after pooling gives the same numbers
        # as before it, for a quarter of the work.
        maps = keras.layers.MaxPooling2D(padding="same")(maps)
        maps = keras.layers.ReLU()(maps)
    return maps


def _keras_cv(inputs, name, *, weights):
    backbone = _keras_cv_backbone(name, inputs.shape[1:])
    if weights is not None:
        backbone.load_weights(weights)
    if name not in _MOBILENETS:
        # As a plain keras.Model of the same layers, ResNets load without keras-cv. MobileNets
        # hold a layer that does not save its arguments: only their own class rebuilds it.
        backbone = keras.Model(backbone.input, backbone.output, name=f"{name}_maps")
    return backbone(keras.layers.Rescaling(1 / 255)(inputs))


def _keras_cv_backbone(name, input_shape):
    """keras-cv's backbone from its arguments: its named classes would download a preset."""
    models = import_keras_cv().models
    if name in _RESNETS:
        blocks, block_type = _RESNETS[name]
        return models.ResNetV2Backbone(
            stackwise_filters=[64, 128, 256, 512],
            stackwise_blocks=blocks,
            stackwise_strides=[1, 2, 2, 2],
            block_type=block_type,
            include_rescaling=False,
            input_shape=input_shape,
        )
    if name in _MOBILENETS:
        return models.MobileNetV3Backbone(
            **_MOBILENETS[name], include_rescaling=False, input_shape=input_shape
        )
    stages, width, depth = _EFFICIENTNETS[name]
    return models.EfficientNetV2Backbone(
        **stages,
        width_coefficient=width,
        depth_coefficient=depth,
        skip_connection_dropout=0.2,
        include_rescaling=False,
        input_shape=input_shape,
    )


def _applications():
    """Model of keras.applications -> its module, which holds its preprocess_input."""
    modules = [getattr(keras.applications, name) for name in _APPLICATION_MODULES]
    found = {model: module for module in modules for model in dir(module) if model[0].isupper()}
    # These two alone are exported without their module.
    small_and_large = ("MobileNetV3Small", "MobileNetV3Large")
    return found | dict.fromkeys(small_and_large, keras.applications.mobilenet_v3)


def _application(inputs, name, *, weights):
    module = _applications()[name]
    if inputs.shape[-1] != 3:
        raise ValueError(
            f"{name} of keras.applications wants colour images [H, W, 3]; found images of shape "
            f"{tuple(inputs.shape[1:])}. Set the data set's channels to 3."
        )
    net = getattr(keras.applications, name)(
        include_top=False, weights=weights, input_shape=tuple(inputs.shape[1:])
    )
    return net(module.preprocess_input(inputs))
