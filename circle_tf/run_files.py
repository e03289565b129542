"""A training run's directory: the names of its files, and the model in it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

__all__ = ["RunFiles", "load_model", "read_best"]


class RunFiles:
    """Paths of a run's files.

    Args:
        path: directory of the run.

    Attributes:
        path: the directory.
        config: the recipe as it was run, JSON.
        data: JSON, the classes, the split and a digest of the examples that the run trains on.
        metrics: one JSON object per line and evaluation.
        checkpoints: directory, to resume from.
        backbone: JSON, a digest of the frozen backbone of a run over cached features.
        model: the finished embedding model, `.keras`.
        best: the embedding model that was best during training, `.keras`, where the run keeps it.
        best_record: JSON, of which step that is, and what was measured after it.
        held_out: `.npz`, examples of unseen classes: `images` `[N, H, W, C]` uint8, `labels` `[N]`,
            `class_names`.
        class_weights: `.npz`, those of a class-level run: `class_weights` `[C, D]` (with
            sub-centres `[C, S, D]`), `class_names`.
        run: JSON, written last: there exactly when the run is complete.
        evaluation: JSON of `trainers.evaluate`.
        plots: directory of PNG files.
        tensorboard: directory of TensorBoard's events.
        lock: the file that a training holds locked; it tells which process does.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.config = os.path.join(path, "config.json")
        self.data = os.path.join(path, "data.json")
        self.metrics = os.path.join(path, "metrics.jsonl")
        self.checkpoints = os.path.join(path, "checkpoints")
        self.backbone = os.path.join(path, "backbone.json")
        self.model = os.path.join(path, "model.keras")
        self.best = os.path.join(path, "best.keras")
        self.best_record = os.path.join(path, "best.json")
        self.held_out = os.path.join(path, "held_out.npz")
        self.class_weights = os.path.join(path, "class_weights.npz")
        self.run = os.path.join(path, "run.json")
        self.evaluation = os.path.join(path, "evaluation.json")
        self.plots = os.path.join(path, "plots")
        self.tensorboard = os.path.join(path, "tensorboard")
        self.lock = os.path.join(path, ".lock")

    @property
    def has_best(self) -> bool:
        """Whether the run has kept its best model."""
        return os.path.exists(self.best_record)

    @property
    def is_finished(self) -> bool:
        """Whether the run is complete."""
        return os.path.exists(self.run)

    @property
    def suggested_base_path(self) -> str:
        """Where to publish the run's model: `models/` and the run's name."""
        return os.path.join("models", os.path.basename(os.path.abspath(self.path)))


def read_best(files: RunFiles) -> dict[str, Any]:
    """What is known of the best model of a run.

    Args:
        files: RunFiles.

    Returns:
        dict: `step`, `value` (of the metric it was judged by), `metrics` (all of that step).

    Raises:
        ValueError: the run has kept none.
    """
    if not files.has_best:
        raise ValueError(
            f"The run in {files.path!r} has no best.json: it did not keep its best model "
            "(config.keep_best). Leave --best out to take the last."
        )
    with open(files.best_record, encoding="utf-8") as file:
        return json.load(file)


def load_model(path: str | os.PathLike[str]) -> keras.Model:
    """The embedding model of a run, also with layers of keras-cv.

    Args:
        path: its `.keras` file.

    Returns:
        `keras.Model` from raw pixels to unit embeddings, not compiled.

    Raises:
        ValueError: there is no such file, or it cannot be loaded.
    """
    # Here, so that the names of files need no TensorFlow.
    import circle_tf.layers  # noqa: F401  Which Keras looks up by name.
    from circle_tf import backbones

    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        raise ValueError(f"There is no {name} in {folder!r}: train it again.")
    return backbones.load_model(path)
