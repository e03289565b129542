"""What a run leaves besides its model: examples, class weights, pictures.

Publishing a run needs these files instead of its data set; pictures are PNG files, and in
TensorBoard.
"""

import os
import warnings

import numpy as np
import tensorflow as tf

from circle_tf import plots
from circle_tf.evaluation import retrieval
from circle_tf.utils.files import replacing
from trainers.evaluation import metrics
from trainers.outputs import workdir as workdirs

__all__ = [
    "BeforeAndAfter",
    "class_weights_of",
    "draw_decision",
    "draw_retrieval",
    "save_class_weights",
    "save_examples",
]

_MOST_BYTES = 64 << 20  # of examples
_POINTS = 2000  # anchors in a scatter, rows in the projector
_QUERIES, _NEIGHBOURS = 10, 8
# Where a loss has no margin of its own, the boundary of the paper's setting is drawn.
_USUAL_MARGIN = 0.25


def save_examples(path, dataset, *, examples, seed):
    """Writes examples of unseen classes: to measure variants of the model with, and to search in.

    Args:
        path: the file, `.npz` with `images` `[N, H, W, C]` uint8, `labels` `[N]`, `class_names`.
        dataset: trainers.datasets.Dataset.
        examples: int, how many at most; also at most 64 MiB of pixels, but two classes.
        seed: int, for the choice of classes.
    """
    room = max(1, _MOST_BYTES // int(np.prod(dataset.image_shape)))
    rows = metrics.choose_classes(dataset.test, examples=min(examples, room), seed=seed)
    content = {
        "images": dataset.test.images(rows),
        "labels": dataset.test.labels[rows],
        "class_names": np.array(dataset.test.class_names, str),
    }
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **content)


def class_weights_of(model):
    """The class weights of a class-level run, which its embedding model does not hold.

    Where they are spread over the replicas of several workers every worker must call it.

    Args:
        model: the model that trained.

    Returns:
        `[C, D]`, `[C, S, D]` with sub-centres, or None without class weights.
    """
    found = [layer for layer in model.layers if hasattr(layer, "class_weights")]
    return np.asarray(found[0].class_weights) if found else None


def save_class_weights(path, weights, *, class_names):
    """Writes class weights.

    Args:
        path: the file, `.npz` with `class_weights` and `class_names` `[C]`.
        weights: as of `class_weights_of`; of None nothing is written.
        class_names: names of the classes.
    """
    if weights is None:
        return
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, class_weights=weights, class_names=np.array(class_names, str))


class BeforeAndAfter:
    """What training does to the similarities of unseen classes.

    Args:
        model: the embedding model before training; its embeddings are kept.
        dataset: trainers.datasets.Dataset, whose test images are shown.
        inputs: trainers.datasets.Split, the test examples as the model takes them; default: images.
        files: trainers.outputs.workdir.Workdir.
        margin: float, the loss's, whose boundary is drawn; None for the paper's usual one.
        seed: int, which examples are shown.
    """

    def __init__(self, model, dataset, *, files, margin, seed, inputs=None):
        self._files, self._split = files, dataset.test
        self._inputs = dataset.test if inputs is None else inputs
        self._margin = _USUAL_MARGIN if margin is None else margin
        self._rows = metrics.choose_classes(dataset.test, examples=_POINTS, seed=seed)
        self._before = metrics.embed(model, self._inputs, self._rows)

    def draw(self, model, *, step):
        """Draws scatter, histograms, curves and the projector's data of the trained model.

        Args:
            model: the embedding model.
            step: int, where TensorBoard shows the pictures.

        Warns:
            UserWarning: no unseen class has two images, whose similarity could be drawn.
        """
        after = metrics.embed(model, self._inputs, self._rows)
        labels = self._split.labels[self._rows]
        settings = {"labels": labels, "margin": self._margin}
        figures = {}
        for kind in (plots.similarity_scatter, plots.similarity_histograms):
            try:
                figures[kind.__name__] = kind(self._before, after, **settings)
            except ValueError as error:
                warnings.warn(f"{kind.__name__} is not drawn: {error}", stacklevel=2)
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
        files: trainers.outputs.workdir.Workdir.
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


def draw_decision(embeddings, labels, found, *, files, step):
    """Draws scores and thresholds of unseen classes.

    Args:
        embeddings: `[N, D]`, those that the thresholds were found on.
        labels: `[N]`.
        found: circle_tf.Calibration.
        files: trainers.outputs.workdir.Workdir.
        step: int, where TensorBoard shows the picture.
    """
    figure = plots.decision_thresholds(embeddings, labels, found)
    _write({"decision_thresholds": figure}, files=files, step=step)


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
