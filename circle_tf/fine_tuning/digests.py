"""By what features are known again: the net that made them, and the image."""

import hashlib
import json
import os

import keras
import numpy as np

from circle_tf.data.records import RecordFiles

__all__ = ["backbone_digest", "image_digests"]

_VERSION = 1  # of how features are computed


def backbone_digest(backbone):
    """A text that differs for nets of other layers, settings, dtypes or weights.

    The names of layers do not count: Keras numbers them by what a process has made before.

    Args:
        backbone: keras.Model with a configuration.

    Returns:
        str, hexadecimal.

    Raises:
        ValueError: it has no configuration.
    """
    try:
        config = keras.saving.serialize_keras_object(backbone)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"cache_features cannot tell the backbone {backbone.name!r} from another: it has no "
            f"configuration ({error}). Make it of layers, or give its class a get_config."
        ) from error
    config.pop("compile_config", None)
    text = json.dumps(_without_names(config), sort_keys=True, default=str)
    found = hashlib.blake2b(f"{_VERSION}{text}".encode(), digest_size=32)
    for weight in backbone.weights:
        value = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        found.update(f"{value.dtype}{value.shape}".encode())
        found.update(value.tobytes())
    return found.hexdigest()


def image_digests(examples, keys=None):
    """A text for each image that differs where the image does.

    Args:
        examples: as `circle_tf.data.pipeline.as_examples` returns them.
        keys: as of `cache_features`.

    Returns:
        ndarray `[N]` of str, hexadecimal.

    Raises:
        ValueError: not one key for each image.
        OSError: a file is not there.
    """
    if keys is not None:
        if len(keys) != len(examples):
            raise ValueError(
                f"cache_features: expected a key for each of {len(examples)} images, found "
                f"{len(keys)} keys."
            )
        contents = (os.fsencode(str(key)) for key in keys)
    elif isinstance(examples, RecordFiles):
        contents = (examples.fetch([row])[0] for row in range(len(examples)))
    elif examples.dtype == object:
        contents = map(_of_file, examples)
    else:
        form = f"{examples.dtype}{examples.shape[1:]}".encode()
        contents = (form + np.ascontiguousarray(image).tobytes() for image in examples)
    found = [hashlib.blake2b(content, digest_size=16).hexdigest() for content in contents]
    return np.array(found, str)


def _of_file(path):
    status = os.stat(path)
    return os.path.abspath(path) + f"|{status.st_size}|{status.st_mtime_ns}".encode()


def _without_names(config):
    """The configuration with each layer's name replaced by its number in order of appearance."""
    numbers = {}

    def collect(value):
        if isinstance(value, dict):
            if isinstance(value.get("config"), dict) and "name" in value["config"]:
                numbers.setdefault(value["config"]["name"], f"layer {len(numbers)}")
            for inner in value.values():
                collect(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                collect(inner)

    def replaced(value):
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [replaced(inner) for inner in value]
        return numbers.get(value, value) if isinstance(value, str) else value

    collect(config)
    return replaced(config)
