"""Backbones by name, from raw pixels 0..255 to features; models scale the pixels themselves."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Sequence
from typing import Literal

import keras

from circle_tf import compat
from circle_tf.backbones import (
    bn_inception,
    conv4,
    iresnet,
    keras_cv,
    mgn,
    pretrained,
    weight_files,
)
from circle_tf.backbones import pooling as poolings

__all__ = ["build", "names"]

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
    "conv4": conv4.conv4,
    "conv4_wide": functools.partial(conv4.conv4, filters=conv4.WIDE),
    "bn_inception": bn_inception.bn_inception,
    **{name: functools.partial(iresnet.iresnet, name=name) for name in iresnet.BLOCKS},
}


def build(
    name: str,
    input_shape: Sequence[int],
    *,
    pooling: Literal["average", "max", "generalized_mean", "flatten", "class_token"] | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> keras.Model:
    """A backbone as a Keras model from raw pixels to features.

    The model scales pixels itself, as its kind of net wants them (0..1 for `conv4` and keras-cv,
    -1..1 for `iresnet`, the application's own `preprocess_input` for keras.applications), so that
    training and serving cannot differ. Weights start at random, or come from a file: nothing is
    downloaded.

    Args:
        name: str, one of `names()`: `conv4` (`conv4_wide` has twice the filters), `bn_inception`,
            `mgn` (see `mgn.py`), `iresnet34` and its like (see `iresnet.py`), keras-cv's ResNetV2,
            EfficientNetV2 and MobileNetV3 in lower case (`resnet18_v2`), or a function of
            `keras.applications` (`ResNet50`).
        input_shape: `(H, W, C)` of the images, pixels.
        pooling: how feature maps become features: `average`, `max`, `generalized_mean` (GeM, with
            a learnt power) or `flatten`. Default: `flatten` for `conv4`, `conv4_wide` and
            `iresnet`, `average` for the others; `mgn` has its own.
        weights: path of a `.keras` file with the same net in it, for images of any size (the
            model.keras of a run, to fine-tune), or of a file with the backbone's weights
            (`.weights.h5`; for keras.applications also the `_notop.h5` files; for `mgn` those of
            ResNet50), or None.

    Returns:
        keras.Model from pixels `[B, H, W, C]` in 0..255 to features `[B, F]`.

    Raises:
        ValueError: unknown name or pooling, unsuitable input shape, weights of another net.
        FileNotFoundError: no file at `weights`.
        ImportError: a keras-cv backbone is asked for and keras-cv is not installed.

    Example:
        >>> build("conv4", (32, 32, 1)).output_shape
        (None, 1024)
    """
    compat.require_keras_3("backbones.build")
    _check(name, input_shape, pooling, weights)
    is_model = weights is not None and os.fspath(weights).endswith(".keras")
    backbone = _built(name, input_shape, pooling, None if is_model else weights)
    if is_model:
        pretrained.copy_weights(weights, backbone)
    return backbone


def names() -> list[str]:
    """Names that `build` knows, sorted.

    Example:
        >>> "conv4" in names() and "resnet18_v2" in names() and "ResNet50" in names()
        True
    """
    return sorted(["mgn", *_OWN, *keras_cv.NAMES, *_applications()])


def _built(name, input_shape, pooling, weights):
    inputs = keras.Input(tuple(input_shape), name="pixels")
    if name == "mgn":
        features = mgn.multi_granularity(inputs, weights=weights)
        return keras.Model(inputs, features, name=name)
    if name in _OWN:
        maps = _OWN[name](inputs)
        weight_files.load(keras.Model(inputs, maps), weights, name=name)
    elif name in _applications():
        maps = _application(inputs, name, weights=weights)
    else:
        maps = keras_cv.feature_maps(inputs, name, weights=weights)
    flat = name in ("conv4", "conv4_wide", *iresnet.BLOCKS)
    default = "flatten" if flat else "average"
    return keras.Model(
        inputs, poolings.features(maps, pooling, default=default, name=name), name=name
    )


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
    if pooling is not None and pooling not in poolings.POOLINGS:
        known = ", ".join(poolings.POOLINGS)
        raise ValueError(f"pooling must be one of {known}; found {pooling!r}.")
    if weights is not None and not os.path.isfile(weights):
        raise FileNotFoundError(
            f"There is no weights file {weights!r}. Give the path of a file; pretrained weights "
            "are not downloaded."
        )


def _applications():
    """Model of keras.applications -> its module, which holds its preprocess_input."""
    modules = [getattr(keras.applications, name) for name in _APPLICATION_MODULES]
    by_model = {model: module for module in modules for model in dir(module) if model[0].isupper()}
    # These two alone are exported without their module.
    small_and_large = ("MobileNetV3Small", "MobileNetV3Large")
    return by_model | dict.fromkeys(small_and_large, keras.applications.mobilenet_v3)


def _application(inputs, name, *, weights):
    module = _applications()[name]
    if inputs.shape[-1] != 3:
        raise ValueError(
            f"{name} of keras.applications wants colour images [H, W, 3]; found images of shape "
            f"{tuple(inputs.shape[1:])}. Set the data set's channels to 3."
        )
    net = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=tuple(inputs.shape[1:])
    )
    weight_files.load(net, weights, name=name)
    return net(module.preprocess_input(inputs))
