"""Weights of a backbone from a model that has been trained around it, such as a run's."""

from __future__ import annotations

import itertools
import os
import re
import zipfile

import keras

from circle_tf.backbones import keras_cv

__all__ = ["copy_weights", "load_model"]

_SHOWN = 3  # Differences that an error tells.


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """A saved model, also with layers of keras-cv.

    Args:
        path: its `.keras` file.

    Returns:
        `keras.Model`, not compiled.

    Raises:
        ValueError: it cannot be loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            has_keras_cv = b"keras_cv" in archive.read("config.json")
        if has_keras_cv:  # Keras knows its layers only once it is imported, which takes seconds.
            keras_cv.import_keras_cv()
        return keras.models.load_model(path, compile=False)
    except (ImportError, KeyError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be loaded: {_reason(error)}") from error


def copy_weights(path, backbone):
    """Gives a backbone the weights that the same net has in a saved model.

    Layers are told apart by their order and their weights' names and shapes; Keras' own names
    count the layers of a process. The images' size may differ.

    Args:
        path: a `.keras` file: a run's model, or a backbone of `backbones.build`.
        backbone: `keras.Model` of `backbones.build`.

    Raises:
        ValueError: it cannot be loaded, or holds another net; then nothing is changed.
    """
    model = load_model(path)
    if "features" not in {layer.name for layer in model.layers}:
        raise ValueError(
            f"{path} holds no backbone: expected a layer named 'features' where it ends, as in the "
            "model.keras of a run."
        )
    trained = keras.Model(model.inputs[0], model.get_layer("features").output)
    there, here = list(_layers(trained)), list(_layers(backbone))
    pairs = itertools.zip_longest(map(_described, there), map(_described, here))
    differ = [(number, *pair) for number, pair in enumerate(pairs, 1) if pair[0] != pair[1]]
    if differ:
        shown = "; ".join(
            f"layer {number}: {theirs or 'none'} there, {ours or 'none'} here"
            for number, theirs, ours in differ[:_SHOWN]
        )
        raise ValueError(
            f"{path} holds another net than {backbone.name} for images of "
            f"{backbone.input_shape[-1]} channel(s): {len(differ)} of {len(here)} layers with "
            f"weights differ ({shown}{'; ...' if len(differ) > _SHOWN else ''})."
        )
    for layer, other in zip(here, there, strict=True):
        layer.set_weights(other.get_weights())


def _layers(model):
    """The layers that have weights, also of nets within, in the order of the graph."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _layers(layer)
        elif layer.weights:
            yield layer


def _described(layer):
    # Unnamed weights are `variable_7`, by their number in the process.
    names = [re.sub(r"_\d+$", "", weight.name) for weight in layer.weights]
    shapes = [list(weight.shape) for weight in layer.weights]
    return " ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))


def _reason(error):
    """The sentence of Keras' long messages that tells most."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"Could not locate .*?\.", text)
    return found[0] if found else text.splitlines()[0]
