"""What publishing a run needs of its data, so that it need not load the data set again."""

import numpy as np

from circle_tf.utils.files import replacing
from trainers.evaluation import metrics

__all__ = ["class_weights_of", "save_class_weights", "save_examples"]

_MOST_BYTES = 64 << 20


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
        `[C, D]`, or None without class weights.
    """
    found = [layer for layer in model.layers if hasattr(layer, "class_weights")]
    return np.asarray(found[0].class_weights) if found else None


def save_class_weights(path, weights, *, class_names):
    """Writes class weights.

    Args:
        path: the file, `.npz` with `class_weights` `[C, D]` and `class_names` `[C]`.
        weights: as of `class_weights_of`; of None nothing is written.
        class_names: names of the classes.
    """
    if weights is None:
        return
    with replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, class_weights=weights, class_names=np.array(class_names, str))
