"""What another Python or another Keras can change: every public class in use, saved and loaded.

`make test-library` runs it and the docstrings' examples on other Pythons, `make test-addons` on the
stack of TensorFlow Addons; `make test` runs it too.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import baselines, compat, metrics
from tests import reference, stacks

OPTIONS = {"margin": 0.25, "gamma": 16.0}
PAIR_LOSSES = {
    "CircleLoss": lambda: circle_tf.CircleLoss(**OPTIONS),
    "CrossBatchCircleLoss": lambda: circle_tf.CrossBatchCircleLoss(40, **OPTIONS),
    "ContrastiveLoss": baselines.ContrastiveLoss,
    "LiftedStructureLoss": baselines.LiftedStructureLoss,
    "MultiSimilarityLoss": baselines.MultiSimilarityLoss,
    "NPairsLoss": baselines.NPairsLoss,
    "TripletLoss": baselines.TripletLoss,
    "UnifiedLoss": baselines.UnifiedLoss,
}
CLASS_LOSSES = {
    "ClassCircleLoss": lambda: circle_tf.ClassCircleLoss(**OPTIONS),
    "AMSoftmaxLoss": baselines.AMSoftmaxLoss,
    "ArcFaceLoss": baselines.ArcFaceLoss,
    "NormFaceLoss": baselines.NormFaceLoss,
    "ProxyAnchorLoss": baselines.ProxyAnchorLoss,
}
LOSS_LAYERS = {
    "PairwiseCircle": lambda: circle_tf.PairwiseCircle(as_model_loss=True, **OPTIONS),
    "CircleHead": lambda: circle_tf.CircleHead(4, as_model_loss=True, **OPTIONS),
    "CrossBatchMemory": lambda: circle_tf.CrossBatchMemory(40, as_model_loss=True, **OPTIONS),
}


def rows_and_ids():
    """Four clouds of eight rows."""
    rng = np.random.default_rng(0)
    ids = np.arange(32) % 4
    rows = rng.normal(size=(4, 10))[ids] + 0.3 * rng.normal(size=(32, 10))
    return rows.astype(np.float32), ids


def build(kind, *, classes=None):
    keras.utils.set_random_seed(0)
    features = keras.Input((10,))
    outputs = circle_tf.UnitEmbedding(6)(keras.layers.Dense(16, "relu")(features))
    if classes:
        outputs = circle_tf.CosineClassifier(classes)(outputs)
    return kind(features, outputs)


def hold_saved(model, inputs, path):
    """Loaded by the import alone, the model gives the same numbers and goes on training."""
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded).__name__ == type(model).__name__
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model(inputs), atol=1e-6)
    return loaded


def test_every_public_name_is_there_and_shows_its_use():
    assert set(circle_tf.__all__) <= set(dir(circle_tf))
    for module in (circle_tf, baselines, metrics):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                assert ">>> " in inspect.getdoc(value), name


def test_every_public_loss_is_tried_here():
    """A new one needs a line in this file."""
    found = {
        name
        for module in (circle_tf, baselines)
        for name in module.__all__
        if inspect.isclass(value := getattr(module, name)) and issubclass(value, keras.losses.Loss)
    }
    assert found == {*PAIR_LOSSES, *CLASS_LOSSES}


def test_the_papers_loss_and_gradient():
    rows, ids = rows_and_ids()
    variable = tf.Variable(rows.astype(np.float64))
    with tf.GradientTape() as tape:
        loss = circle_tf.CircleLoss(reduction="sum", **OPTIONS)(ids, variable)
    expected, _, _ = reference.pairwise(rows, ids, **OPTIONS)
    np.testing.assert_allclose(loss, expected.sum(), rtol=1e-10)
    slopes = reference.pairwise_embedding_gradient(rows, ids, np.ones(32), **OPTIONS)
    np.testing.assert_allclose(tape.gradient(loss, variable), slopes, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64])
def test_losses_of_any_dtype(dtype):
    rows, ids = rows_and_ids()
    given = tf.cast(rows, dtype)
    expected, _, _ = reference.pairwise(tf.cast(given, tf.float64).numpy(), ids, **OPTIONS)
    found = circle_tf.CircleLoss(reduction="sum", **OPTIONS)(ids, given)
    assert found.dtype == (tf.float64 if dtype == tf.float64 else tf.float32)
    np.testing.assert_allclose(found, expected.sum(), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_layers_of_any_policy_give_float32_cosines(policy):
    rows, _ = rows_and_ids()
    unit = circle_tf.UnitEmbedding(6, dtype=policy)(rows)
    cosines = circle_tf.CosineClassifier(4, dtype=policy)(unit)
    assert cosines.dtype == unit.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, rtol=1e-5)
    assert np.abs(cosines).max() <= 1


@pytest.mark.parametrize("name", [*PAIR_LOSSES, *CLASS_LOSSES])
def test_losses_come_back_from_their_config(name):
    rows, ids = rows_and_ids()
    unit = reference.normalize(rows).astype(np.float32)
    outputs = unit @ unit[:4].T if name in CLASS_LOSSES else unit
    loss = {**PAIR_LOSSES, **CLASS_LOSSES}[name]()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    if name != "CrossBatchCircleLoss":  # It is called by a model, which holds its memory.
        value = float(loss(ids, outputs))
        assert value > 0 and float(again(ids, outputs)) == value


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (keras.Model, "CircleLoss"),
        (keras.Model, "ClassCircleLoss"),
        (keras.Model, "TripletLoss"),
        pytest.param(circle_tf.EmbeddingModel, "CircleLoss", marks=stacks.needs_keras_3),
        pytest.param(circle_tf.EmbeddingModel, "CrossBatchCircleLoss", marks=stacks.needs_keras_3),
    ],
)
def test_models_train_and_are_saved_with_their_loss(kind, name, tmp_path):
    rows, ids = rows_and_ids()
    labels = "class" if name in CLASS_LOSSES else "pairwise"
    model = build(kind, classes=4 if name in CLASS_LOSSES else None)
    monitors = metrics.monitors(margin=0.25, labels=labels)
    loss = {**PAIR_LOSSES, **CLASS_LOSSES}[name]()
    model.compile("adam", loss, metrics=monitors, jit_compile=False)
    history = model.fit(rows, ids, epochs=4, batch_size=32, verbose=0).history
    assert np.isfinite(history["loss"]).all() and history["s_p"][-1] != history["s_p"][0]
    loaded = hold_saved(model, rows, str(tmp_path / "model.keras"))
    assert loaded.loss.get_config() == model.loss.get_config()
    losses = [m.fit(rows, ids, batch_size=32, verbose=0).history["loss"] for m in (loaded, model)]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize("name", LOSS_LAYERS)
def test_layers_that_hold_a_loss_train_and_are_saved(name, tmp_path):
    rows, ids = rows_and_ids()
    keras.utils.set_random_seed(0)
    features, labels = keras.Input((10,)), keras.Input((), dtype="int64")
    unit = circle_tf.UnitEmbedding(6)(features)
    model = keras.Model([features, labels], LOSS_LAYERS[name]()((unit, labels)))
    model.compile("adam", jit_compile=False)
    history = model.fit([rows, ids], epochs=4, batch_size=32, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] != history[0]
    hold_saved(model, [rows, ids], str(tmp_path / "model.keras"))


def test_batches_training_retrieval_and_diagnostics_together():
    rows, ids = rows_and_ids()
    model = build(keras.Model)
    model.compile(keras.optimizers.Adam(0.01), circle_tf.CircleLoss(**OPTIONS), jit_compile=False)
    batches = circle_tf.pk_dataset(rows, ids, classes_per_batch=4, examples_per_class=4)
    look = circle_tf.DiagnosticsCallback(rows, ids, tell=lambda message: None)
    retrieval = circle_tf.RetrievalCallback(rows, ids)
    steps = {"epochs": 3, "steps_per_epoch": 10, "shuffle": False, "verbose": 0}
    history = model.fit(batches, callbacks=[look, retrieval], **steps).history
    report = circle_tf.retrieval_report(model.predict(rows, verbose=0), ids)
    assert report["recall_at_1"] == history["val_recall_at_1"][-1] > 0.9
    assert set(look.found) == {"saturated weights"}  # Eight rows of four clouds are soon learnt.


@pytest.mark.skipif(compat.IS_KERAS_3, reason="the default stack has it")
def test_the_other_stack_is_told_what_it_lacks():
    with pytest.raises(NotImplementedError, match="EmbeddingModel needs Keras 3"):
        build(circle_tf.EmbeddingModel)


@stacks.needs_keras_3
def test_a_model_is_served(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 1)).astype(np.float32)
    pixels = keras.Input((4, 4, 1))
    unit = circle_tf.UnitEmbedding(6)(keras.layers.Flatten()(pixels))
    model = keras.Model(pixels, unit)
    path = circle_tf.save_servable(model, tmp_path / "1")
    serve = tf.saved_model.load(path).signatures["serving_default"]
    found = serve(images=tf.constant(images))["embeddings"]
    np.testing.assert_allclose(found, model.predict(images, verbose=0), atol=1e-6)
