"""What a finished training run left in its workdir."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zipfile
from typing import TYPE_CHECKING

from circle_tf import run_files
from circle_tf.utils import command_lines
from export.cli import console

if TYPE_CHECKING:
    import numpy as np

__all__ = ["HeldOut", "Run", "load_model", "read"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        workdir: its directory.
        record: dict, what run.json says: `step`, `config_name`, `image_shape`, `metrics`, ...
        config: dict, the configuration it trained with; empty if it was not kept.
        best: bool, whether the model that was best in training is meant, not the last.
    """

    workdir: str
    record: dict
    config: dict
    best: bool = False

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
        path = run_files.RunFiles(self.workdir).held_out
        return HeldOut.load(path) if os.path.exists(path) else None

    def class_weights(self):
        """`[C, D]` class weights of a class-level run, `[C, S, D]` with sub-centres.

        None of other runs, and of the best model: those that are kept go with the last.

        Raises:
            console.ExportError: their file is broken.
        """
        if self.best:
            return None
        path = run_files.RunFiles(self.workdir).class_weights
        return _arrays(path, "class_weights")[0] if os.path.exists(path) else None

    def class_names(self):
        """`[C]` names of the rows of `class_weights`; None without these.

        Raises:
            console.ExportError: their file is broken.
        """
        path = run_files.RunFiles(self.workdir).class_weights
        return _arrays(path, "class_names")[0] if os.path.exists(path) else None

    def decision(self):
        """Thresholds that `trainers.evaluate` found for this model, as `Calibration.as_dict`.

        None where it has evaluated none, or another model of the run.

        Raises:
            console.ExportError: its file is broken.
        """
        files = run_files.RunFiles(self.workdir)
        if not os.path.isfile(files.evaluation):
            return None
        found = _read_json(files.evaluation)
        file = os.path.basename(files.best if self.best else files.model)
        if found.get("model") != {"file": file, "step": self.record.get("step")}:
            return None
        return found.get("decision")


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

    @classmethod
    def load(cls, path):
        """Reads a run's held_out.npz.

        Args:
            path: the file.

        Returns:
            HeldOut.

        Raises:
            console.ExportError: it is broken.
            FileNotFoundError: there is no such file.
        """
        found = cls(*_arrays(path, "images", "labels", "class_names"))
        if found.labels.max(initial=0) >= len(found.class_names):
            raise console.ExportError(
                f"{path} is broken (a label counts none of {len(found.class_names)} classes): "
                "train the run again."
            )
        return found


def read(workdir, *, best=False):
    """Reads the record of a finished run.

    Args:
        workdir: the directory that `trainers.train` wrote.
        best: bool, take the model that was best in training, not the last.

    Returns:
        Run; of the best model `record` tells its step and metrics.

    Raises:
        console.ExportError: no such directory, the run is not finished, or its files are broken.
    """
    if not os.path.isdir(workdir):
        raise console.ExportError(
            f"There is no workdir {workdir!r}. Give the --workdir of a training run."
        )
    files = run_files.RunFiles(workdir)
    if not files.is_finished:
        train = command_lines.python_module(
            "trainers.train", "--config=CONFIG", f"--workdir={workdir}"
        )
        raise console.ExportError(
            f"The run in {workdir!r} has not finished (no run.json). Run {train} with its own "
            "recipe as CONFIG: it continues from the last checkpoint."
        )
    record = _read_json(files.run)
    if best:
        with _for_people():
            kept = run_files.read_best(files)
        record = {**record, "step": kept["step"], "metrics": kept["metrics"]}
    return Run(
        workdir=workdir,
        best=best,
        record=record,
        config=_read_json(files.config) if os.path.isfile(files.config) else {},
    )


def load_model(workdir, *, best=False):
    """Loads the embedding model of a run.

    Args:
        workdir: the directory that `trainers.train` wrote.
        best: bool, the model that was best in training, not the last.

    Returns:
        `keras.Model` from raw pixels to unit embeddings.

    Raises:
        console.ExportError: there is no such model, or it cannot be loaded.
    """
    files = run_files.RunFiles(workdir)
    with _for_people():
        return run_files.load_model(files.best if best else files.model)


@contextlib.contextmanager
def _for_people():
    try:
        yield
    except ValueError as error:
        raise console.ExportError(str(error)) from error


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise console.ExportError(f"{path} is not JSON ({error}): train the run again.") from error
    if not isinstance(content, dict):
        raise console.ExportError(f"{path} must hold a JSON object: train the run again.")
    return content


def _arrays(path, *names):
    import numpy as np  # Here, for --help is shown without it.

    try:
        with np.load(path) as content:
            return [content[name] for name in names]
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise console.ExportError(f"{path} is broken ({error}): train the run again.") from error
