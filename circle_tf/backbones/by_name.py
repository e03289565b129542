"""Backbones by name, from raw pixels 0..255 to features; models scale the pixels themselves."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Sequence
from typing import Literal

import keras

from circle_tf import compat
from circle_tf.backbones import (
    applications,
    bn_inception,
    conv4,
    iresnet,
    keras_cv,
    keras_hub,
    mgn,
    pretrained,
    user_nets,
    weight_files,
)
from circle_tf.backbones import pooling as poolings

__all__ = ["build", "names"]

# Feature maps of our own nets.
_OWN = {
    "conv4": conv4.conv4,
    "conv4_wide": functools.partial(conv4.conv4, filters=conv4.WIDE),
    "bn_inception": bn_inception.bn_inception,
    **{name: functools.partial(iresnet.iresnet, name=name) for name in iresnet.BLOCKS},
}
_APPLICATION = "application:"
_RANDOM = "random"
_OTHERS = (
    "keras_hub:PRESET, application:NAME, module:function and the path of a .keras file are "
    "backbones too."
)


def build(
    name: str,
    input_shape: Sequence[int],
    *,
    pooling: Literal["average", "max", "generalized_mean", "flatten", "class_token"] | None = None,
    weights: str | os.PathLike[str] | None = None,
    partial_weights: bool = False,
) -> keras.Model:
    """A backbone as a Keras model from raw pixels to features.

    The model scales pixels itself, as its kind of net wants them (0..1 for `conv4` and keras-cv,
    -1..1 for `iresnet`, the application's own `preprocess_input` for keras.applications, the
    preset's own converter for KerasHub), so that training and serving cannot differ.

    Args:
        name: str, one of `names()`: `conv4` (`conv4_wide` has twice the filters), `bn_inception`,
            `mgn` (see `mgn.py`), `iresnet34` and its like (see `iresnet.py`), keras-cv's ResNetV2,
            EfficientNetV2 and MobileNetV3 in lower case (`resnet18_v2`), or a function of
            `keras.applications` (`ResNet50`, also `application:ResNet50`). Or `keras_hub:` and an
            image preset of KerasHub (`keras_hub:dinov2_small`), its `hf://` or `kaggle://` handle
            or its folder; `module:function` of a function that is called with `(H, W, C)` and
            returns a `keras.Model` from pixels to features, tokens or maps; or the path of a
            `.keras` file, such as a run's. Nets of the user's scale pixels themselves.
        input_shape: `(H, W, C)` of the images, pixels.
        pooling: how maps `[B, H, W, F]` or tokens `[B, T, F]` become features: `average`, `max`,
            `generalized_mean` (GeM, with a learnt power), `flatten` or `class_token`; of tokens all
            but the last take those of patches (of the user's nets all; their first is the class
            token). Default: `flatten` for `conv4`, `conv4_wide` and `iresnet`, the class token
            where there is one, else `average`; `mgn` and SigLIP have their own.
        weights: path of a `.keras` file with the same net in it, for images of any size (the
            model.keras of a run, to fine-tune), of a finished run, or of a file with the backbone's
            weights (`.weights.h5`; for keras.applications also the `_notop.h5` files; for `mgn`
            those of ResNet50); for KerasHub also of a preset's folder. `imagenet`: what Keras
            fetches for keras.applications. None: what presets and `.keras` files come with, else
            random ones. `random`: random ones.
        partial_weights: whether to load what fits where not all of the weights do; a warning names
            the layers that keep their own.

    Returns:
        keras.Model from pixels `[B, H, W, C]` in 0..255 to features `[B, F]`.

    Raises:
        ValueError: unknown name or pooling, unsuitable input shape, weights of another net, weights
            that could not be fetched.
        FileNotFoundError: no file at `weights`.
        ImportError: a backbone of a package that is not installed.

    Example:
        >>> build("conv4", (32, 32, 1)).output_shape
        (None, 1024)
    """
    compat.require_keras_3("backbones.build")
    name = _known(name)
    _check(name, input_shape, pooling)
    weights = _source_of_weights(weights, name)
    is_model = weights is not None and weights.endswith(".keras")
    first = (_RANDOM if name.startswith(keras_hub.PREFIX) else None) if is_model else weights
    backbone = _built(name, input_shape, pooling, weights=first, partial=partial_weights)
    if is_model:
        pretrained.copy_weights(weights, backbone, partial=partial_weights)
    return backbone


def names() -> list[str]:
    """Names that `build` knows, sorted; those with a prefix, and nets of the user's, come beside.

    Example:
        >>> "conv4" in names() and "resnet18_v2" in names() and "ResNet50" in names()
        True
    """
    return sorted(["mgn", *_OWN, *keras_cv.NAMES, *applications.names()])


def _built(name, input_shape, pooling, *, weights, partial):
    inputs = keras.Input(tuple(input_shape), name="pixels")
    # Keras takes no slashes, nor TensorFlow colons.
    model_name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    if name == "mgn":
        features = mgn.multi_granularity(inputs, weights=weights, partial=partial)
        return keras.Model(inputs, features, name=model_name)
    outputs, default, special_tokens = _outputs(inputs, name, weights=weights, partial=partial)
    features = poolings.features(
        outputs, pooling, default=default, special_tokens=special_tokens, name=name
    )
    return keras.Model(inputs, features, name=model_name)


def _outputs(inputs, name, **weights):
    """What a net ends in, how that is pooled by default, and how many special tokens it has."""
    if name.startswith(keras_hub.PREFIX):
        outputs, special_tokens = keras_hub.outputs(inputs, name, **weights)
        return outputs, "average", special_tokens
    if user_nets.is_file(name) or user_nets.is_function(name):
        return user_nets.outputs(inputs, name, **weights), "average", None
    if name in _OWN:
        maps = _OWN[name](inputs)
        path, partial = weights["weights"], weights["partial"]
        weight_files.load(keras.Model(inputs, maps), path, name=name, partial=partial)
        return maps, "average" if name == "bn_inception" else "flatten", 0
    source = applications if name in applications.names() else keras_cv
    return source.feature_maps(inputs, name, **weights), "average", 0


def _known(name):
    """A backbone's name without `application:`, once it is seen to be one."""
    if name.startswith(_APPLICATION):
        known, name = list(applications.names()), name.removeprefix(_APPLICATION)
    elif ":" in name or user_nets.is_file(name):
        return name
    else:
        known = names()
    if name not in known:
        close = difflib.get_close_matches(str(name).lower(), [n.lower() for n in known], n=1)
        meant = [each for each in known if each.lower() in close]
        hint = f"Did you mean {meant[0]!r}?" if meant else f"Known: {', '.join(known)}."
        raise ValueError(f"There is no backbone {name!r}. {hint} {_OTHERS}")
    return name


def _check(name, input_shape, pooling):
    if len(input_shape) != 3 or not all(isinstance(n, int) and n > 0 for n in input_shape):
        raise ValueError(
            f"input_shape must be (height, width, channels) in pixels; found {input_shape!r}."
        )
    if name == "mgn" and pooling is not None:
        raise ValueError(f"mgn has its own pooling: leave pooling None; found {pooling!r}.")
    if pooling is not None and pooling not in poolings.POOLINGS:
        known = ", ".join(poolings.POOLINGS)
        raise ValueError(f"pooling must be one of {known}; found {pooling!r}.")


def _source_of_weights(weights, name):
    """The file or folder that `weights` means, or the word that it is."""
    if weights is None:
        return None
    weights = os.fspath(weights)
    if weights == applications.IMAGENET:
        if name not in {"mgn", *applications.names()}:
            raise ValueError(
                f"weights of {applications.IMAGENET!r} are for nets of keras.applications; found "
                f"{name!r}. A preset of KerasHub brings its own: leave weights None."
            )
        return weights
    if weights == _RANDOM:
        if user_nets.is_file(name):
            raise ValueError(f"{name!r} brings its weights: leave weights None; found 'random'.")
        return weights if name.startswith(keras_hub.PREFIX) else None
    if name.startswith(keras_hub.PREFIX) and keras_hub.is_preset_folder(weights):
        return weights
    of_run = os.path.join(weights, "model.keras")
    if os.path.isdir(weights) and os.path.isfile(of_run):
        return of_run
    if not os.path.isfile(weights):
        raise FileNotFoundError(
            f"There is no weights file {weights!r}. Give the path of a file, of a finished run or, "
            "for keras_hub:..., of a preset's folder; or imagenet, for what Keras fetches for "
            "keras.applications; or random."
        )
    return weights
