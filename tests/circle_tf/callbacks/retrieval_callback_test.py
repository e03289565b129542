"""Retrieval while training: through the logs to every other callback."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import compat
from circle_tf.callbacks import retrieval_callback
from circle_tf.evaluation import retrieval

MODEL = circle_tf.EmbeddingModel if compat.IS_KERAS_3 else keras.Model
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype(np.float32)
Y = np.repeat(np.arange(6), 4)
HELD_OUT = RNG.normal(size=(15, 6)).astype(np.float32)
HELD_OUT_IDS = np.repeat(2**31 + np.arange(5), 3)
NAMES = ["val_recall_at_1", "val_precision_at_1", "val_r_precision"]
NAMES += ["val_mean_average_precision_at_r"]


def compiled_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = MODEL(inputs, circle_tf.UnitEmbedding(4)(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=circle_tf.CircleLoss())
    return model


def fit(*found, epochs=3, model=None, **kwargs):
    model = model or compiled_model()
    return model, model.fit(
        X, Y, batch_size=12, epochs=epochs, callbacks=found, verbose=0, **kwargs
    )


class Recorder(keras.callbacks.Callback):
    """Keeps a copy of each epoch's logs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the logs."""
        self.seen.append(dict(logs))


class Counting(retrieval_callback.RetrievalCallback):
    """Counts evaluations."""

    calls = 0

    def evaluate(self):
        """One more."""
        self.calls += 1
        return super().evaluate()


def test_the_logs_hold_the_metrics_of_the_model_as_it_is():
    callback = retrieval_callback.RetrievalCallback(HELD_OUT, HELD_OUT_IDS, ks=(1, 3), batch_size=4)
    model, history = fit(callback)
    report = retrieval.retrieval_report(model.predict(HELD_OUT, verbose=0), HELD_OUT_IDS, ks=(1, 3))
    for name in [*NAMES, "val_recall_at_3"]:
        assert len(history.history[name]) == 3
        assert history.history[name][-1] == report[name.removeprefix("val_")]
    assert not any("queries" in name for name in history.history)


def test_query_and_gallery():
    gallery, ids = HELD_OUT[::3], HELD_OUT_IDS[::3]
    callback = retrieval_callback.RetrievalCallback(
        HELD_OUT, HELD_OUT_IDS, gallery=gallery, gallery_labels=ids, prefix="one_shot_"
    )
    model, history = fit(callback, epochs=1)
    expected = retrieval.precision_at_1(
        model.predict(HELD_OUT, verbose=0),
        HELD_OUT_IDS,
        gallery=model.predict(gallery, verbose=0),
        gallery_labels=ids,
    )
    assert history.history["one_shot_precision_at_1"] == [expected]


def test_other_callbacks_see_the_results_if_they_come_after(tmp_path):
    retrieve = retrieval_callback.RetrievalCallback(HELD_OUT, HELD_OUT_IDS)
    before, after = Recorder(), Recorder()
    best = tmp_path / "best.keras"
    # At a learning rate of 0 nothing improves after the first epoch.
    model = compiled_model()
    model.optimizer.learning_rate = 0.0
    stop = keras.callbacks.EarlyStopping("val_recall_at_1", mode="max", patience=2)
    save = keras.callbacks.ModelCheckpoint(
        str(best), "val_recall_at_1", mode="max", save_best_only=True
    )
    board = keras.callbacks.TensorBoard(tmp_path / "logs")
    _, history = fit(before, retrieve, after, stop, save, board, epochs=9, model=model)
    assert not any(set(NAMES) & set(logs) for logs in before.seen)
    assert all(set(NAMES) <= set(logs) for logs in after.seen)
    assert len(history.epoch) == 3
    assert best.exists()
    assert set(NAMES) <= scalar_tags(tmp_path / "logs")


def scalar_tags(folder):
    events = [str(path) for path in folder.rglob("events*")]
    records = tf.data.TFRecordDataset(events).as_numpy_iterator()
    parsed = [tf.compat.v1.Event.FromString(record) for record in records]
    return {"val_" + v.tag.removeprefix("epoch_") for e in parsed for v in e.summary.value}


def test_the_progress_bar_shows_the_results(capsys):
    callback = retrieval_callback.RetrievalCallback(HELD_OUT, HELD_OUT_IDS)
    compiled_model().fit(X, Y, callbacks=[callback], verbose=2)
    assert "val_recall_at_1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("epochs", "every", "initial", "calls"),
    [(7, 3, 0, 4), (4, 1, 0, 4), (5, 9, 0, 2), (8, 4, 5, 2)],
)
def test_first_every_and_last_epoch_are_evaluated_and_repeated_between(
    epochs, every, initial, calls
):
    callback = Counting(HELD_OUT, HELD_OUT_IDS, every=every)
    _, history = fit(callback, epochs=epochs, initial_epoch=initial)
    assert callback.calls == calls
    assert len(history.history["val_recall_at_1"]) == epochs - initial


def test_a_second_fit_forgets_the_results_of_the_first():
    callback = Counting(HELD_OUT, HELD_OUT_IDS, every=5)
    fit(callback, epochs=1)
    model, history = fit(callback, epochs=2)
    assert callback.calls == 3
    assert history.history["val_recall_at_1"][-1] == retrieval.recall_at_k(
        model.predict(HELD_OUT, verbose=0), HELD_OUT_IDS
    )


def test_class_level_training_gives_the_embedding_model():
    inputs = keras.Input((6,))
    embeddings = circle_tf.UnitEmbedding(4)(inputs)
    embedder = keras.Model(inputs, embeddings)
    model = keras.Model(inputs, circle_tf.CosineClassifier(6)(embeddings))
    model.compile(loss=circle_tf.ClassCircleLoss())
    callback = retrieval_callback.RetrievalCallback(HELD_OUT, HELD_OUT_IDS, model=embedder)
    _, history = fit(callback, epochs=2, model=model)
    expected = retrieval.r_precision(embedder.predict(HELD_OUT, verbose=0), HELD_OUT_IDS)
    assert history.history["val_r_precision"][-1] == expected


def test_the_weights_end_as_without_the_callback():
    with_it, _ = fit(retrieval_callback.RetrievalCallback(HELD_OUT, HELD_OUT_IDS), shuffle=False)
    without, _ = fit(shuffle=False)
    for found, expected in zip(with_it.get_weights(), without.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("labels", "kwargs", "message"),
    [
        (HELD_OUT_IDS[:4], {}, "15 rows, 4 ids"),
        (np.arange(15), {}, "No query has a match"),
        (HELD_OUT_IDS, {"gallery": HELD_OUT}, "must be given together"),
        (HELD_OUT_IDS, {"ks": (1, 15)}, "k must be a whole number from 1 to 14"),
        (HELD_OUT_IDS, {"every": 0}, "every must be at least 1 epoch; found 0"),
    ],
)
def test_mistakes_are_found_before_training(labels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        retrieval_callback.RetrievalCallback(HELD_OUT, labels, **kwargs)
