"""One-shot classification within an alphabet, as Lake et al. judge it: 20 runs of 20 characters."""

import functools

import numpy as np

from circle_tf.data import decoding
from trainers.datasets import base, one_shot_runs
from trainers.evaluation import metrics

__all__ = ["classify_runs", "protocols"]

_RESAMPLED = 10_000
_INTERVAL = (2.5, 97.5)  # percentiles


def protocols(runs=""):
    """The protocol that a command is asked for.

    Args:
        runs: folder, as of `classify_runs`; empty: none.

    Returns:
        dict of name to `fn(model) -> dict of numbers`.

    Raises:
        base.DataError: there are no whole runs.

    Example:
        >>> protocols("")
        {}
    """
    if not runs:
        return {}
    return {"one_shot_runs": functools.partial(classify_runs, runs=one_shot_runs.read(runs))}


def classify_runs(model, runs):
    """Error of a model that gives each item the class whose one drawing is most similar.

    Drawings are read as in training: by the same decoder, at the size and in the channels of the
    model's input. Equally similar classes share an item.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to unit embeddings `[B, D]`.
        runs: as of `one_shot_runs.read`.

    Returns:
        dict: `error`, mean over the runs of the share of items in the wrong class; `error_low` and
        `error_high`, its 95 % interval over resampled runs (None of one run); `error_of_run`, dict
        of name to error; `runs`, `items` (of all runs).

    Raises:
        base.DataError: a drawing cannot be read.
    """
    files = sorted({file for run in runs for file in (*run.classes, *run.items)})
    shape = model.input_shape[1:]
    split = base.Split(
        np.array(files, object),
        np.zeros(len(files), int),
        ("drawing",),
        decoding.image_decoder(shape),
    )
    embeddings = dict(zip(files, metrics.embed(model, split), strict=True))
    errors = {run.name: _error(run, embeddings) for run in runs}
    low, high = _interval(list(errors.values()))
    return {
        "error": float(np.mean(list(errors.values()))),
        "error_low": low,
        "error_high": high,
        "error_of_run": errors,
        "runs": len(runs),
        "items": sum(len(run.items) for run in runs),
    }


def _error(run, embeddings):
    items, classes = (
        np.stack([embeddings[file] for file in files]) for files in (run.items, run.classes)
    )
    similarities = items @ classes.T
    best = similarities == similarities.max(axis=1, keepdims=True)
    right = best[np.arange(len(items)), run.truth] / best.sum(axis=1)
    return float(1 - right.mean())


def _interval(errors):
    if len(errors) < 2:
        return None, None
    rng = np.random.default_rng(0)
    rows = rng.integers(len(errors), size=[_RESAMPLED, len(errors)])
    low, high = np.percentile(np.array(errors)[rows].mean(axis=1), _INTERVAL)
    return float(low), float(high)
