"""Pictures of a run, as PNG files and in TensorBoard."""

import os

import numpy as np
import tensorflow as tf

from circle_tf import plots
from circle_tf.evaluation import retrieval
from trainers.evaluation import metrics
from trainers.training import workdir as workdirs

__all__ = ["BeforeAndAfter", "draw_retrieval"]

_POINTS = 2000  # anchors in a scatter, rows in the projector
_QUERIES, _NEIGHBOURS = 10, 8
# Where a loss has no margin of its own, the boundary of the paper's setting is drawn.
_USUAL_MARGIN = 0.25


class BeforeAndAfter:
    """What training does to the similarities of unseen classes.

    Args:
        model: the embedding model before training; its embeddings are kept.
        dataset: trainers.datasets.Dataset.
        files: trainers.training.workdir.Workdir.
        margin: float, the loss's, whose boundary is drawn; None for the paper's usual one.
        seed: int, which examples are shown.
    """

    def __init__(self, model, dataset, *, files, margin, seed):
        self._files, self._split = files, dataset.test
        self._margin = _USUAL_MARGIN if margin is None else margin
        self._rows = metrics.choose_classes(dataset.test, examples=_POINTS, seed=seed)
        self._before = metrics.embed(model, self._split, self._rows)

    def draw(self, model, *, step):
        """Draws scatter, histograms, curves and the projector's data of the trained model.

        Args:
            model: the embedding model.
            step: int, where TensorBoard shows the pictures.
        """
        after = metrics.embed(model, self._split, self._rows)
        labels = self._split.labels[self._rows]
        settings = {"labels": labels, "margin": self._margin}
        figures = {
            "similarity_scatter": plots.similarity_scatter(self._before, after, **settings),
            "similarity_histograms": plots.similarity_histograms(self._before, after, **settings),
        }
        if records := workdirs.MetricsLog(self._files.metrics).records():
            figures["training_curves"] = plots.training_curves(records)
        _write(figures, files=self._files, step=step)
        plots.write_projector(
            self._files.tensorboard,
            after,
            images=self._split.images(self._rows),
            labels=labels,
            class_names=self._split.class_names,
        )


def draw_retrieval(model, dataset, *, files, step, seed=0):
    """Draws a sheet of queries of unseen classes with their nearest neighbours.

    Args:
        model: the embedding model.
        dataset: trainers.datasets.Dataset; queries are looked up in its gallery, or, without one,
            test examples among themselves.
        files: trainers.training.workdir.Workdir.
        step: int, where TensorBoard shows the picture.
        seed: int, which queries are shown.
    """
    queries = dataset.test if dataset.queries is None else dataset.queries
    references = dataset.test if dataset.gallery is None else dataset.gallery
    rows = np.random.default_rng(seed).permutation(len(queries))[:_QUERIES]
    found, similarities = _neighbours(model, queries, references, rows)
    images = references.images(found.ravel())
    figure = plots.retrieval_sheet(
        queries.images(rows),
        images.reshape(*found.shape, *images.shape[1:]),
        similarities=similarities,
        query_labels=queries.labels[rows],
        neighbour_labels=references.labels[found],
        class_names=queries.class_names,
        title="Unseen classes and what is nearest to them",
    )
    _write({"retrieval_sheet": figure}, files=files, step=step)


def _neighbours(model, queries, references, rows):
    """Rows of `references` nearest to the queries [q, k], and similarities [q, k]."""
    gallery = metrics.embed(model, references)
    if references is queries:
        found, similarities = retrieval.nearest_neighbours(
            gallery, min(_NEIGHBOURS, len(references) - 1)
        )
        return found[rows], similarities[rows]
    sought = metrics.embed(model, queries, rows)
    return retrieval.nearest_neighbours(sought, min(_NEIGHBOURS, len(gallery)), gallery=gallery)


def _write(figures, *, files, step):
    writer = tf.summary.create_file_writer(files.tensorboard)
    with writer.as_default(step):
        for name, figure in figures.items():
            plots.save_png(figure, os.path.join(files.plots, f"{name}.png"))
            tf.summary.image(name, plots.figure_to_image(figure)[None])
    writer.close()
