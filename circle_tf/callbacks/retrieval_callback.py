"""Retrieval on held-out classes while a model trains."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import keras
from numpy.typing import ArrayLike

from circle_tf.evaluation import neighbours, retrieval
from circle_tf.utils import checks

__all__ = ["RetrievalCallback"]


class RetrievalCallback(keras.callbacks.Callback):
    """Embeds held-out images after epochs and puts retrieval metrics into Keras' logs.

    The logs get `val_recall_at_{k}`, `val_precision_at_1`, `val_r_precision` and
    `val_mean_average_precision_at_r`: the progress bar, the history, TensorBoard, EarlyStopping and
    ModelCheckpoint find them there. Callbacks run in the order given and see only what those
    before them wrote, so this one comes first:

        callbacks=[RetrievalCallback(...), EarlyStopping("val_recall_at_1", mode="max")]

    Evaluated are the first epoch, every `every`-th and the last. The epochs between repeat the
    results before them, so that whoever monitors them always finds them.

    Args:
        images: `[Q, ...]` array, as the model takes them; of classes that are not trained on.
        labels: `[Q]` or `[Q, 1]` integer ids.
        gallery: `[N, ...]` array to look up in; None for leave-one-out.
        gallery_labels: `[N]` or `[N, 1]` integer ids, with `gallery`.
        every: int, epochs from one evaluation to the next.
        ks: ints, or one, the k of each `recall_at_k`.
        batch_size: int, images embedded at a time.
        prefix: str, put before each name.
        model: keras.Model that gives the embeddings `[B, D]`, where the model that trains gives
            something else (class-level training: cosines). None: the model that trains.

    Raises:
        ValueError: lengths that differ, no query that has a reference of its class, `k` larger
            than the gallery, `every` below 1: all before training starts.

    Example:
        >>> import numpy as np
        >>> from circle_tf import CircleLoss
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        >>> model.compile(loss=CircleLoss())
        >>> x, y = np.float32([[1, 0], [1, 1], [0, 1], [0, 2]]), np.int64([5, 5, 6, 6])
        >>> history = model.fit(x, y, verbose=0, callbacks=[RetrievalCallback(x, y)])
        >>> len(history.history["val_recall_at_1"])
        1
    """

    def __init__(
        self,
        images: ArrayLike,
        labels: ArrayLike,
        *,
        gallery: ArrayLike | None = None,
        gallery_labels: ArrayLike | None = None,
        every: int = 1,
        ks: int | Iterable[int] = (1,),
        batch_size: int = 128,
        prefix: str = "val_",
        model: keras.Model | None = None,
    ) -> None:
        super().__init__()
        if operator.index(every) < 1:
            raise ValueError(f"every must be at least 1 epoch; found {every}.")
        self._images, self._labels = images, labels
        self._gallery, self._gallery_labels = gallery, gallery_labels
        self._every, self._ks = operator.index(every), tuple(checks.several(ks))
        self._batch_size, self._prefix = batch_size, prefix
        self._embedding_model = model
        self._results = None
        self._check()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets the results of an earlier `fit`."""
        self._results = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the results into `logs`."""
        is_last = epoch + 1 == self.params.get("epochs")
        if self._results is None or (epoch + 1) % self._every == 0 or is_last:
            self._results = self.evaluate()
        if logs is not None:
            logs.update(self._results)

    def evaluate(self) -> dict[str, float]:
        """The metrics of the model as it is now.

        Returns:
            dict of prefixed name to float 0 to 1.
        """
        gallery = None if self._gallery is None else self._embed(self._gallery)
        report = retrieval.retrieval_report(
            self._embed(self._images),
            self._labels,
            gallery=gallery,
            gallery_labels=self._gallery_labels,
            ks=self._ks,
        )
        counts = ("queries", "queries_without_match")
        return {f"{self._prefix}{name}": x for name, x in report.items() if name not in counts}

    def _embed(self, images):
        model = self.model if self._embedding_model is None else self._embedding_model
        return model.predict(images, batch_size=self._batch_size, verbose=0)

    def _check(self):
        neighbours.check_labels(
            self._images, self._labels, gallery=self._gallery, gallery_labels=self._gallery_labels
        )
        for k in self._ks:
            neighbours.check_k(k, queries=self._images, gallery=self._gallery)
