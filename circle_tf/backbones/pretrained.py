"""Weights of a backbone from a model that has been trained around it, such as a run's."""

from __future__ import annotations

import os
import re
import zipfile

import keras

from circle_tf.backbones import copying, keras_cv, keras_hub

__all__ = ["copy_weights", "load_model", "up_to_features"]

# Keras knows their layers only once they are imported, which takes seconds.
_PACKAGES = {b"keras_cv": keras_cv.import_keras_cv, b"keras_hub": keras_hub.import_keras_hub}


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """A saved model, also with layers of keras-cv or KerasHub.

    Args:
        path: its `.keras` file.

    Returns:
        `keras.Model`, not compiled.

    Raises:
        ValueError: it cannot be loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json")
        for package, imported in _PACKAGES.items():
            if package in config:
                imported()
        return keras.models.load_model(path, compile=False)
    except (
        *(AttributeError, ImportError, KeyError, OSError, TypeError, ValueError),
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} cannot be loaded: {_reason(error)}") from error


def up_to_features(model):
    """The part of a saved model that is its backbone, or None.

    Args:
        model: `keras.Model`.

    Returns:
        `keras.Model` that ends in the layer named `features`.
    """
    if "features" not in {layer.name for layer in model.layers}:
        return None
    return keras.Model(model.inputs[0], model.get_layer("features").output)


def copy_weights(path, backbone, *, partial=False):
    """Gives a backbone the weights that the same net has in a saved model.

    Args:
        path: a `.keras` file: a run's model, or a backbone of `backbones.build`.
        backbone: `keras.Model` of `backbones.build`.
        partial: whether to copy the layers that are alike where not all are, with a warning.

    Raises:
        ValueError: it cannot be loaded, or holds another net; then nothing is changed.
    """
    trained = up_to_features(load_model(path))
    if trained is None:
        raise ValueError(
            f"{path} holds no backbone: expected a layer named 'features' where it ends, as in the "
            "model.keras of a run."
        )
    copying.copy(trained, backbone, path=path, name=backbone.name, partial=partial)


def _reason(error):
    """The sentence of Keras' long messages that tells most."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"Could not locate .*?\.", text)
    return found[0] if found else text.splitlines()[0]
