"""How well an embedding model finds classes it has never seen."""

import functools
import warnings

import keras
import numpy as np
import tensorflow as tf
import tqdm

from circle_tf.callbacks import RetrievalCallback
from circle_tf.evaluation import calibration, reidentification, reranking, retrieval
from trainers.cli import commands

__all__ = [
    "RATES",
    "VALIDATED",
    "Embedder",
    "choose_classes",
    "during_training",
    "embed",
    "evaluate",
]

# What `during_training` puts into the logs.
VALIDATED = (
    "val_mean_average_precision_at_r",
    "val_recall_at_1",
    "val_precision_at_1",
    "val_r_precision",
)

RATES = (1e-2, 1e-3)  # False accepts.

_CHUNK = 1024  # images decoded at a time
_BATCH = 256
_SHORT = 4  # chunks, for which a bar would only flash by
_CALIBRATED = 10_000  # examples at most: fifty million pairs


def evaluate(model, dataset, *, rerank=False, false_accept_rates=RATES, on_decision=None):
    """All metrics of a data set's protocols.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        dataset: trainers.datasets.Dataset.
        rerank: whether to rank anew by k-reciprocal neighbours as well, where cameras are known.
        false_accept_rates: floats above 0 and below 1, to find thresholds for.
        on_decision: `fn(embeddings, labels, Calibration)`, called with what thresholds were found
            on; None for nothing.

    Returns:
        dict: `leave_one_out` -> the numbers of `circle_tf.retrieval.retrieval_report` for the
        unseen classes, each example looked up among the others; and, for data sets with queries
        and a gallery, `one_shot` -> those of the queries looked up in the gallery, or, where
        cameras are known, `re_identification` -> those of `circle_tf.reidentification_report`,
        and with `rerank` `re_ranked` -> the same after re-ranking. `decision` -> thresholds of
        `circle_tf.calibrate` for the unseen classes. What the data do not allow has `not_measured`
        -> the reason in its place.

    Raises:
        commands.ConfigError: `rerank` of a data set without cameras.
    """
    results = {}
    has_cameras = dataset.queries is not None and dataset.queries.cameras is not None
    if rerank and not has_cameras:
        raise commands.ConfigError(
            f"--rerank is for data sets of re-identification; {dataset.name} has no cameras."
        )
    if has_cameras:
        results |= _re_identify(model, dataset.queries, dataset.gallery, rerank=rerank)
    elif dataset.queries is not None:
        results["one_shot"] = _measured(
            retrieval.retrieval_report,
            embed(model, dataset.queries),
            dataset.queries.labels,
            gallery=embed(model, dataset.gallery),
            gallery_labels=dataset.gallery.labels,
        )
    embeddings = embed(model, dataset.test)
    results["leave_one_out"] = _measured(
        retrieval.retrieval_report, embeddings, dataset.test.labels
    )
    rows = choose_classes(dataset.test, examples=_CALIBRATED)
    results["decision"] = _measured(
        _calibrated,
        embeddings[rows],
        dataset.test.labels[rows],
        rates=false_accept_rates,
        on_decision=on_decision,
    )
    return results


def _calibrated(embeddings, labels, *, rates, on_decision):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The table marks rates of too few examples.
        found = calibration.calibrate(embeddings, labels, false_accept_rates=rates)
    if on_decision is not None:
        on_decision(embeddings, labels, found)
    return found.as_dict()


def _measured(report, *arguments, **options):
    """A report's numbers, or why the data, as queries without a match, allow none."""
    try:
        return report(*arguments, **options)
    except ValueError as error:
        return {"not_measured": str(error)}


def _re_identify(model, queries, gallery, *, rerank):
    rows = [embed(model, queries), embed(model, gallery)]
    report = functools.partial(
        _measured,
        reidentification.reidentification_report,
        rows[0],
        queries.labels,
        rows[1],
        gallery.labels,
        query_cameras=queries.cameras,
        gallery_cameras=gallery.cameras,
    )
    found = {"re_identification": report()}
    if rerank:
        # The paper's 20 and 6, or what there is.
        k1 = min(20, len(rows[0]) + len(rows[1]) - 1)
        distances = reranking.k_reciprocal_distances(*rows, k1=k1, k2=min(6, k1))
        found["re_ranked"] = report(distances=distances)
    return found


def embed(model, split, rows=None):
    """Embeddings of a split's images, decoded and embedded in chunks.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        split: trainers.datasets.Split.
        rows: indices into the split; None for all.

    Returns:
        ndarray float32 `[len(rows), D]`.

    Raises:
        commands.ConfigError: embeddings with NaN or inf.
    """
    rows = np.arange(len(split)) if rows is None else np.asarray(rows)
    embedder = Embedder(model)
    found = [np.zeros([0, model.output_shape[-1]], np.float32)]
    starts = range(0, len(rows), _CHUNK)
    hidden = True if len(starts) < _SHORT else None
    for start in tqdm.tqdm(starts, desc="embedding", leave=False, disable=hidden):
        images = split.images(rows[start : start + _CHUNK])
        found.append(embedder.predict(images, batch_size=_BATCH))
    embeddings = np.concatenate(found)
    if not np.isfinite(embeddings).all():
        raise commands.ConfigError(
            f"The model {model.name} gives embeddings with NaN or inf: its weights come from a "
            "training that has diverged. Train anew, with a lower optimizer.learning_rate."
        )
    return embeddings


class Embedder:
    """A model as a function of arrays, traced once, in this process alone.

    `keras.Model.predict` would run on all workers of a cluster, and evaluating is the chief's.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
    """

    def __init__(self, model):
        pixels = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32)
        call = tf.function(lambda images: model(images, training=False), input_signature=[pixels])
        # Several of these are no retracing, of which TensorFlow would warn.
        self._call = call.get_concrete_function()

    def __call__(self, images):
        """Embeddings `[B, D]`, an ndarray, of pixels `[B, H, W, C]` of any dtype."""
        return self._call(tf.cast(images, tf.float32)).numpy()

    def predict(self, images, *, batch_size, verbose=0):
        """Embeddings `[N, D]` of pixels `[N, H, W, C]`, so many at a time, as Keras' `predict`."""
        del verbose
        starts = range(0, len(images), batch_size)
        return np.concatenate([self(images[start : start + batch_size]) for start in starts])


def choose_classes(split, *, examples, seed=0):
    """Rows of a random choice of whole classes, or of parts of two where two are too many already.

    Args:
        split: trainers.datasets.Split.
        examples: int, how many examples at most; less than 4 count as 4, two of each class.
        seed: int.

    Returns:
        Sorted indices `[n]` into the split.
    """
    classes, counts = np.unique(split.labels, return_counts=True)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(classes))
    chosen = int(np.searchsorted(np.cumsum(counts[order]), examples, side="right"))
    if chosen >= 2:
        return np.flatnonzero(np.isin(split.labels, classes[order[:chosen]]))
    share = max(2, examples // 2)
    rows = [rng.permutation(np.flatnonzero(split.labels == classes[i]))[:share] for i in order[:2]]
    return np.sort(np.concatenate(rows))


def during_training(config, *, model, dataset):
    """The callback that evaluates after each epoch, on unseen classes.

    With queries and a gallery it takes all of them, but for data sets with cameras, whose
    galleries are large; else leave-one-out over as many unseen classes
    as `eval_examples` allows. With fewer classes to mistake them for, the latter numbers are higher
    than those of `evaluate`.

    Args:
        config: recipe; reads `eval_examples` and `seed`.
        model: the embedding model; the model that trains may end in class scores.
        dataset: trainers.datasets.Dataset.

    Returns:
        circle_tf.callbacks.RetrievalCallback; a callback that does nothing where the data have no
        query with a match.

    Warns:
        UserWarning: there is none.
    """
    try:
        return _retrieval_callback(config, model=model, dataset=dataset)
    except ValueError as error:
        warnings.warn(f"Nothing is evaluated while training: {error}", stacklevel=2)
        return keras.callbacks.Callback()


def _retrieval_callback(config, *, model, dataset):
    if dataset.queries is not None and dataset.queries.cameras is None:
        return RetrievalCallback(
            dataset.queries.images(),
            dataset.queries.labels,
            gallery=dataset.gallery.images(),
            gallery_labels=dataset.gallery.labels,
            model=Embedder(model),
        )
    rows = choose_classes(dataset.test, examples=config.eval_examples, seed=config.seed)
    return RetrievalCallback(
        dataset.test.images(rows), dataset.test.labels[rows], model=Embedder(model)
    )
