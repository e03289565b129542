"""Learning rates of layers of their own, by `compile(learning_rate_factors=...)`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.fine_tuning import FineTuning
from circle_tf.losses.streaming import class_sweep
from circle_tf.optimizers import rate_factors
from tests import stacks
from tests.combinations import quick
from tests.small_models import mirrored, rows_and_ids

pytestmark = stacks.needs_keras_3

FACTOR, RATE = 10.0, 0.01


def built(head, factors, *, optimizer=None, replicas=1, scaled=False, **options):
    """A model over a backbone of one block, and the layer of its class weights."""
    strategy = mirrored(replicas) if replicas > 1 else tf.distribute.get_strategy()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((6,)), keras.Input((), dtype="int64")
        backbone = keras.Model(features, keras.layers.Dense(5, name="block")(features))
        layer = circle_tf.CircleHead(9, gamma=16.0, as_model_loss=True, name="classes", **head)
        embeddings = circle_tf.UnitEmbedding(4, name="embedding")(backbone.output)
        model = circle_tf.EmbeddingModel([features, ids], layer((embeddings, ids)))
        optimizer = optimizer or keras.optimizers.AdamW(RATE, weight_decay=0.5)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, learning_rate_factors=factors, **options)
    return model, backbone


def changes(model, *, callbacks=()):
    """What a step changes, by the layer."""
    rows, ids = rows_and_ids(16)
    before = {v.path: np.array(v) for v in model.trainable_variables}
    model.fit([rows, ids], batch_size=16, shuffle=False, verbose=0, callbacks=list(callbacks))
    found = {v.path: np.array(v) - before[v.path] for v in model.trainable_variables}
    return {path.rpartition("/")[0]: change for path, change in found.items()}


CASES = {
    "all classes": {"head": {}},
    "sampled": {"head": {"sample_rate": 0.6}},
    "fused": {"head": {"fused_update": True}},
    "scaled": {"head": {}, "scaled": True},
    "shards": {"head": {"shards": "replicas"}, "replicas": 2},
    "replicas": {"head": {"sample_rate": 0.6}, "replicas": 2},
}


# The others are slow: each traces two steps, over replicas for many seconds.
@stacks.needs_own_steps
@pytest.mark.parametrize("name", quick(list(CASES), among=["sampled", "fused"]))
def test_class_weights_change_by_the_factor_and_nothing_else_does(name, monkeypatch):
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", 4 * 16 * 4)
    plain, faster = (
        changes(built(factors=factors, **CASES[name])[0]) for factors in (None, {"classes": FACTOR})
    )
    assert set(plain) >= {"classes", "block", "embedding"}
    for layer, change in plain.items():
        times = FACTOR if layer == "classes" else 1
        np.testing.assert_allclose(faster[layer], times * change, rtol=1e-3, atol=1e-6)
    assert np.abs(plain["classes"]).max() > 0.9 * RATE  # Of Adam, to begin with.


def test_factors_of_fine_tuning_and_of_compile_hold_together():
    def found(factors, **tuning):
        model, backbone = built({}, factors, optimizer=keras.optimizers.Adam(RATE))
        callbacks = [FineTuning(backbone, **tuning)] if tuning else []
        return changes(model, callbacks=callbacks)

    plain = found(None)
    both = found({"classes": FACTOR, "block": 4.0}, learning_rate_factor=0.25, layer_decay=0.5)
    for layer, times in {"classes": FACTOR, "embedding": 1, "block": 0.5}.items():
        np.testing.assert_allclose(both[layer], times * plain[layer], rtol=1e-3, atol=1e-7)


def test_a_model_compiled_anew_has_the_factors_of_that_compile(tmp_path):
    model, _ = built({}, {"classes": FACTOR}, optimizer=keras.optimizers.SGD(RATE))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["learning_rate_factors"] == {"classes": FACTOR}
    ten = changes(loaded)["classes"]
    loaded.compile(loaded.optimizer)
    assert not isinstance(loaded.optimizer, rate_factors.RateFactors)
    loaded.set_weights(model.get_weights())
    np.testing.assert_allclose(ten, FACTOR * changes(loaded)["classes"], atol=1e-5)


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"class": 2.0}, "no layer 'class' with weights that train. Those .*: block, embedding"),
        ({"input_layer": 2.0}, "no layer 'input_layer.*' with weights that train"),
        ({"classes": 0}, "that of 'classes' must be a number above 0; found 0. To train without"),
        ({"classes": "10"}, "must be a number above 0; found '10'"),
        ({"classes": float("inf")}, "must be a number above 0; found inf"),
    ],
)
def test_bad_factors(factors, message):
    with pytest.raises(ValueError, match=message):
        built({}, factors)
