"""The nets of keras.applications, with their own preprocessing within."""

import os
import re
import warnings

import keras

from circle_tf.backbones import weight_files

__all__ = ["IMAGENET", "feature_maps", "names", "net"]

IMAGENET = "imagenet"  # The weights that Keras fetches and keeps.

# Modules of keras.applications, each with its own preprocess_input.
_MODULES = (
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
# Files that Keras keeps by another name than their address has.
_KEPT_AS = {
    "NASNet-mobile-no-top.h5": "nasnet_mobile_no_top.h5",
    "NASNet-large-no-top.h5": "nasnet_large_no_top.h5",
}


def names():
    """Model of keras.applications -> its module, which holds its preprocess_input."""
    modules = [getattr(keras.applications, name) for name in _MODULES]
    by_model = {model: module for module in modules for model in dir(module) if model[0].isupper()}
    # These two alone are exported without their module.
    small_and_large = ("MobileNetV3Small", "MobileNetV3Large")
    return by_model | dict.fromkeys(small_and_large, keras.applications.mobilenet_v3)


def feature_maps(inputs, name, *, weights=None, partial=False):
    """Feature maps of a net of keras.applications.

    Args:
        inputs: Keras tensor `[B, H, W, 3]`, pixels in 0..255.
        name: str, of `names()`.
        weights: path of a file with the net's weights, `imagenet` or None.
        partial: whether the file may hold a part of them.

    Returns:
        Keras tensor `[B, h, w, F]`.

    Raises:
        ValueError: images of another number of channels, weights of another net, or ones that
            could not be fetched.

    Example:
        >>> feature_maps(keras.Input((64, 32, 3)), "MobileNetV2").shape
        (None, 2, 1, 1280)
    """
    module = names()[name]
    if inputs.shape[-1] != 3:
        raise ValueError(
            f"{name} of keras.applications wants colour images [H, W, 3]; found images of shape "
            f"{tuple(inputs.shape[1:])}. Set the data set's channels to 3."
        )
    whole = net(name, tuple(inputs.shape[1:]), weights=weights, partial=partial)
    return whole(module.preprocess_input(inputs))


def net(name, shape, *, weights=None, partial=False):
    """A net of keras.applications without its top.

    Args:
        name: str, of `names()`.
        shape: `(H, W, 3)`.
        weights: as of `feature_maps`.
        partial: as of `feature_maps`.

    Returns:
        `keras.Model` from preprocessed pixels to maps.

    Raises:
        ValueError: weights of another net, or ones that could not be fetched.
    """
    make = getattr(keras.applications, name)
    if weights != IMAGENET:
        made = make(include_top=False, weights=None, input_shape=shape)
        weight_files.load(made, weights, name=name, partial=partial)
        return made
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Weights of 224 x 224 fit any size.
            return make(include_top=False, weights=IMAGENET, input_shape=shape)
    except Exception as error:  # What Keras raises where it cannot fetch a file is no narrower.
        found = re.search(r"URL fetch failure on (\S+): (?:None -- )?(.*)", str(error))
        if not found:
            raise
        file = os.path.basename(found[1])
        raise ValueError(
            f"The imagenet weights of {name} could not be fetched ({found[2]}). Fetch {found[1]} "
            "on a machine that can, and give the file as weights here, or put it, as "
            f"{_KEPT_AS.get(file, file)}, into {_cache()}."
        ) from error


def _cache():
    """Where Keras keeps what it has fetched."""
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    return os.path.join(home, "models")
