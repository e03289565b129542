"""What a finished training run left in its workdir."""

import dataclasses
import json
import os
import re
import zipfile

import numpy as np

from export.cli import console

__all__ = ["HeldOut", "Run", "load_model", "read"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        workdir: its directory.
        record: dict, what run.json says: `step`, `config_name`, `image_shape`, `metrics`, ...
        config: dict, the configuration it trained with; empty if it was not kept.
    """

    workdir: str
    record: dict
    config: dict

    @property
    def image_shape(self):
        """`(H, W, C)`, or None if the run does not say."""
        shape = self.record.get("image_shape")
        return tuple(shape) if shape else None

    def held_out(self):
        """Examples of classes that training has not seen.

        Returns:
            HeldOut, or None if the run did not keep any.

        Raises:
            console.ExportError: its file is broken.
        """
        found = self._arrays("held_out.npz", "images", "labels", "class_names")
        return HeldOut(*found) if found else None

    def class_weights(self):
        """`[C, D]` class weights of a class-level run; None of others.

        Raises:
            console.ExportError: their file is broken.
        """
        found = self._arrays("class_weights.npz", "class_weights")
        return found[0] if found else None

    def _arrays(self, name, *wanted):
        path = os.path.join(self.workdir, name)
        if not os.path.exists(path):
            return None
        try:
            with np.load(path) as content:
                return [content[key] for key in wanted]
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise console.ExportError(
                f"{path} is broken ({error}): train the run again."
            ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class HeldOut:
    """Examples of classes that training has not seen.

    Args:
        images: `[N, H, W, C]` uint8.
        labels: `[N]` int.
        class_names: names of the classes that labels count.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: np.ndarray

    @property
    def names(self):
        """Name of the class of each example `[N]`."""
        return self.class_names[self.labels]


def read(workdir):
    """Reads the record of a finished run.

    Args:
        workdir: the directory that `trainers.train` wrote.

    Returns:
        Run.

    Raises:
        console.ExportError: no such directory, the run is not finished, or its files are broken.
    """
    if not os.path.isdir(workdir):
        raise console.ExportError(
            f"There is no workdir {workdir!r}. Give the --workdir of a training run."
        )
    record = os.path.join(workdir, "run.json")
    if not os.path.isfile(record):
        raise console.ExportError(
            f"The run in {workdir!r} has not finished (no run.json). Run python -m trainers.train "
            f"--workdir={workdir} with its --config: it continues from the last checkpoint."
        )
    config = os.path.join(workdir, "config.json")
    return Run(
        workdir=workdir,
        record=_read_json(record),
        config=_read_json(config) if os.path.isfile(config) else {},
    )


def load_model(workdir):
    """Loads the embedding model of a run.

    Args:
        workdir: the directory that `trainers.train` wrote.

    Returns:
        `keras.Model` from raw pixels to unit embeddings.

    Raises:
        console.ExportError: there is no model.keras, or it cannot be loaded.
    """
    import keras  # Here, so that `read` can refuse a workdir without loading TensorFlow.

    from circle_tf.backbones import (
        by_name,  # With circle_tf come the layers that model.keras holds.
    )

    path = os.path.join(workdir, "model.keras")
    if not os.path.isfile(path):
        raise console.ExportError(f"There is no model.keras in {workdir!r}: train it again.")
    try:
        if _needs_keras_cv(path):
            by_name.import_keras_cv()
        return keras.models.load_model(path, compile=False)
    except (ImportError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise console.ExportError(f"{path} cannot be loaded: {_reason(error)}") from error


def _needs_keras_cv(path):
    with zipfile.ZipFile(path) as archive:
        return b"keras_cv" in archive.read("config.json")


def _reason(error):
    """The sentence of Keras' long messages that tells most."""
    text = str(error).strip() or type(error).__name__
    found = re.search(r"Could not locate .*?\.", text)
    return found[0] if found else text.splitlines()[0]


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise console.ExportError(f"{path} is not JSON ({error}): train the run again.") from error
    if not isinstance(content, dict):
        raise console.ExportError(f"{path} must hold a JSON object: train the run again.")
    return content
