"""The image backbones of KerasHub, with their preset's own preprocessing within.

This is the only module that imports keras_hub, and only when one of its backbones is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import textwrap
import warnings
from types import ModuleType

import keras
import numpy as np

from circle_tf.backbones import copying, keras_cv, weight_files

__all__ = ["PREFIX", "import_keras_hub", "is_preset_folder", "outputs"]

PREFIX = "keras_hub:"

_CONVERTER = "image_converter.json"
# Tokens before those of the patches, the class token first. Others have none, or no tokens.
_SPECIAL_TOKENS = {
    "CLIPVisionEncoder": lambda net: 1,
    "DINOV2Backbone": lambda net: 1 + net.num_register_tokens,
    "DINOV3Backbone": lambda net: 1 + net.num_register_tokens,
    "DeiTBackbone": lambda net: 2,
    "MetaCLIP2VisionEncoder": lambda net: 1,
    "ViTBackbone": lambda net: int(net.use_class_token),
}
# No image reaches a mask token. Of DINOv2's positions KerasHub saves those of the preset's size,
# from which those of another size are computed when it is loaded: what these learnt would be lost.
_FROZEN = ("mask_token", "interpolated_position_embeddings")


def import_keras_hub() -> ModuleType:
    """The keras_hub package, imported now; this also lets Keras load models that hold its layers.

    Raises:
        ImportError: it is not installed; the message names the extra to install.
    """
    try:
        with keras_cv.home_folder():
            return importlib.import_module("keras_hub")
    except ImportError as error:
        raise ImportError(
            f"This needs KerasHub (backbones named keras_hub:...), which cannot be imported "
            f"({error}). Install it with: pip install 'circle-tf[hub]'"
        ) from error


def is_preset_folder(path):
    """Whether a path is a folder as KerasHub's `save_to_preset` writes it."""
    return os.path.isfile(os.path.join(path, "config.json")) and not os.path.isfile(
        os.path.join(path, "model.keras")
    )


def outputs(inputs, name, *, weights=None, partial=False):
    """What an image backbone of KerasHub makes of pixels.

    Args:
        inputs: Keras tensor `[B, H, W, C]`, pixels in 0..255, scaled within as the preset says.
        name: str, `keras_hub:` and a preset: its name, handle or folder. Of CLIP, SigLIP and other
            models with several towers that of images is taken.
        weights: None for the preset's own, `random`, the folder of another preset, or the path of
            a file with the backbone's weights.
        partial: whether folder or file may hold a part of them.

    Returns:
        `(outputs, special_tokens)`: Keras tensor of features `[B, F]`, tokens `[B, T, F]` or maps
        `[B, h, w, F]`, and how many of the tokens come before those of the patches, the class
        token first.

    Raises:
        ImportError: KerasHub is not installed.
        ValueError: no such preset, or it could not be fetched, or is not for these images.
    """
    hub = import_keras_hub()
    preset, shape = _preset(hub, name), tuple(inputs.shape[1:])
    tower = _tower(hub, preset, name, load_weights=weights is None)
    net = _for_images(tower, shape, name)
    if weights is None and net is not tower:
        copying.copy(tower, net, path=preset, name=name)
    elif weights not in (None, "random") and is_preset_folder(weights):
        trained = _tower(hub, weights, f"{PREFIX}{weights}", load_weights=True)
        copying.copy(trained, net, path=weights, name=name, partial=partial)
    elif weights != "random":
        weight_files.load(net, weights, name=name, partial=partial)
    _set_positions_and_freeze(net)
    pixels = _scaled(inputs, _converter(hub, preset, name))
    found = net({key: pixels for key in net.input} if isinstance(net.input, dict) else pixels)
    return _single(found), _SPECIAL_TOKENS.get(type(net).__name__, lambda net: 0)(net)


def _preset(hub, name):
    preset = name.removeprefix(PREFIX)
    folder = os.path.expanduser(preset)
    if os.path.isdir(folder):
        if not is_preset_folder(folder):
            raise ValueError(
                f"{folder} is no preset of KerasHub: it has no config.json, as save_to_preset "
                "writes it."
            )
        return folder
    known = hub.models.Backbone.presets
    if preset not in known and "://" not in preset:
        close = [each for each in known if preset and each.startswith(preset)]
        close = close[:3] or difflib.get_close_matches(preset, known, n=3)
        hint = f" Did you mean {', '.join(close)}?" if close else ""
        raise ValueError(
            f"KerasHub has no preset {preset!r}, and there is no such folder.{hint} Presets are "
            "listed at https://keras.io/keras_hub/presets."
        )
    return preset


def _tower(hub, preset, name, *, load_weights):
    """A preset's net of images."""
    try:
        source = hub.models.Backbone.from_preset(preset, load_weights=load_weights)
    except Exception as error:  # Those of three clients, of HDF5 and of the net itself.
        raise ValueError(_unavailable(hub, preset, error)) from error
    towers = [
        source,
        *(getattr(source, part, None) for part in ("vision_encoder", "image_encoder")),
    ]
    for tower in towers:
        if isinstance(tower, keras.Model) and _takes_images(tower):
            return tower
    raise ValueError(f"{name} has no net of images alone: it is a {type(source).__name__}.")


def _takes_images(net):
    single = _single(net.output)
    return len(net.inputs) == 1 and len(net.inputs[0].shape) == 4 and hasattr(single, "shape")


def _single(found):
    """The tensor that a net ends in, also where it gives its inner ones beside it."""
    return found.get("sequence_output", found) if isinstance(found, dict) else found


def _for_images(tower, shape, name):
    """The same net for images of a size, in today's precision policy, with random weights.

    The net itself where it suits.
    """
    sides = tower.inputs[0].shape[1:]
    if sides[-1] != shape[-1]:
        raise ValueError(
            f"{name} wants images of {sides[-1]} channels; found images of shape {shape}. Set the "
            f"data set's channels to {sides[-1]}."
        )
    policy = keras.config.dtype_policy()
    suits = all(side in (None, own) for side, own in zip(sides, shape, strict=True))
    if suits and tower.dtype_policy.name == policy.name:
        return tower
    config = {**tower.get_config(), "dtype": policy}
    config["image_shape" if "image_shape" in config else "input_shape"] = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Of what is told below in one line.
            net = type(tower).from_config(config)
    except Exception as error:  # Layers fail on sizes in ways of their own.
        said = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{name} cannot take images of {shape}: {said}") from error
    if len(net.weights) != len(tower.weights):  # Keras lets pass what fails while it looks ahead.
        raise ValueError(
            f"{name} cannot take images of {shape}: some of its layers fail on them. Those of its "
            f"preset are {tuple(sides)}; larger ones may do."
        )
    return net


def _set_positions_and_freeze(net):
    for weight in net.weights:
        if weight.name == "position_ids":  # CLIP's are zeros until weights are loaded.
            weight.assign(np.arange(weight.shape[-1])[None])
        if weight.name in _FROZEN:
            weight.trainable = False


def _converter(hub, preset, name):
    """The preset's own preprocessing."""
    path = os.path.join(preset, _CONVERTER)
    try:
        if os.path.isdir(preset):
            with open(path, encoding="utf-8") as file:
                return keras.saving.deserialize_keras_object(json.load(file))
        return hub.layers.ImageConverter.from_preset(preset)
    except FileNotFoundError as error:
        raise ValueError(
            f"{name} has no {_CONVERTER}, which says how its net wants pixels. Write it: "
            "keras_hub.layers.ImageConverter(scale=1 / 255).save_to_preset(FOLDER), with the "
            "scale and offset that it was trained with."
        ) from error
    except Exception as error:
        raise ValueError(_unavailable(hub, preset, error)) from error


def _scaled(inputs, converter):
    """Pixels as the converter wants them, at the size that they have."""
    if converter.scale is None and converter.offset is None:
        return inputs
    scale, offset = (
        np.asarray(default if value is None else value, np.float64).tolist()
        for value, default in [(converter.scale, 1.0), (converter.offset, 0.0)]
    )
    # Half precision would round what is near the middle of the range.
    return keras.layers.Rescaling(scale, offset, dtype="float32")(inputs)


def _unavailable(hub, preset, error):
    said = textwrap.shorten(f"{type(error).__name__}: {error}", 200)
    if os.path.isdir(preset):
        return f"The preset in {preset} cannot be loaded ({said})."
    known = hub.models.Backbone.presets.get(preset, {}).get("kaggle_handle", "")
    kept = os.environ.get("KAGGLEHUB_CACHE") or os.path.join("~", ".cache", "kagglehub")
    folder = known.removeprefix("kaggle://").split("/")[:-1]
    folder = os.path.join(kept, "models", *folder)
    kept = f" Or copy the folder in which KerasHub keeps it, {folder}, to here." if known else ""
    code = (
        f"import keras_hub as k; p = '{preset}'; k.models.Backbone.from_preset(p)"
        ".save_to_preset('FOLDER'); k.layers.ImageConverter.from_preset(p).save_to_preset('FOLDER')"
    )
    return (
        f"KerasHub could not fetch the preset {preset!r} ({said}). On a machine that can, run "
        f'python -c "{code}", copy FOLDER here, and take keras_hub:FOLDER as the backbone.{kept}'
    )
