"""The backbones of keras-cv, from their arguments: nothing is downloaded.

This is the only module that imports keras_cv, and only when one of its backbones or augmentation
layers is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from types import ModuleType

import keras

from circle_tf.backbones import weight_files

__all__ = ["NAMES", "feature_maps", "home_folder", "import_keras_cv"]

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

NAMES = (*_RESNETS, *_EFFICIENTNETS, *_MOBILENETS)


def import_keras_cv() -> ModuleType:
    """The keras_cv package, imported now; this also lets Keras load models that hold its layers.

    Raises:
        ImportError: it is not installed; the message names the extra to install.

    Example:
        >>> import_keras_cv().__name__
        'keras_cv'
    """
    try:
        with home_folder():
            return importlib.import_module("keras_cv")
    except ImportError as error:
        raise ImportError(
            "This needs keras-cv (backbones, augmentation), which cannot be imported "
            f"({error}). Install it with: pip install 'circle-tf[train]'"
        ) from error


@contextlib.contextmanager
def home_folder():
    """Some home folder, which kagglehub asks for when it is imported; containers may have none."""
    if os.path.expanduser("~") != "~":
        yield
        return
    os.environ["HOME"] = tempfile.gettempdir()
    try:
        yield
    finally:
        del os.environ["HOME"]


def feature_maps(inputs, name, *, weights=None, partial=False):
    """Feature maps of a backbone of keras-cv.

    Args:
        inputs: Keras tensor `[B, H, W, C]`, pixels in 0..255, scaled to 0..1 within.
        name: str, of `NAMES`.
        weights: path of a file with the backbone's weights, or None.
        partial: whether the file may hold a part of them.

    Returns:
        Keras tensor `[B, H / 32, W / 32, F]`, sides rounded up.

    Raises:
        ImportError: keras-cv is not installed.

    Example:
        >>> feature_maps(keras.Input((64, 32, 3)), "resnet18_v2").shape
        (None, 2, 1, 512)
    """
    backbone = _backbone(name, inputs.shape[1:])
    weight_files.load(backbone, weights, name=name, partial=partial)
    if name not in _MOBILENETS:
        # As a plain keras.Model of the same layers, ResNets load without keras-cv. MobileNets
        # hold a layer that does not save its arguments: only their own class rebuilds it.
        backbone = keras.Model(backbone.input, backbone.output, name=f"{name}_maps")
    return backbone(keras.layers.Rescaling(1 / 255)(inputs))


def _backbone(name, input_shape):
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
