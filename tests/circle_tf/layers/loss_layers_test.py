"""Losses as layers: values, the model's losses, configs of all layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests import stacks

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16", "float64"]


def rows_and_ids(*, size=12, dim=6, dtype=np.float32):
    rng = np.random.default_rng(0)
    return rng.normal(size=(size, dim)).astype(dtype), np.arange(size) // 3


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("jit", [False, True])
def test_pairwise_layer_equals_the_loss(policy, jit):
    rows, ids = rows_and_ids()
    layer = circle_tf.PairwiseCircle(margin=0.3, gamma=64.0, dtype=policy)
    found = tf.function(layer, jit_compile=jit)((tf.constant(rows), tf.constant(ids)))
    loss = circle_tf.CircleLoss(margin=0.3, gamma=64.0, reduction="none")
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, loss(ids, rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean_valid", "mean", "sum"])
def test_pairwise_layer_adds_its_mean_to_the_models_losses(reduction):
    rows, ids = rows_and_ids()
    layer = circle_tf.PairwiseCircle(as_model_loss=True, reduction=reduction)
    layer((tf.constant(rows), tf.constant(ids)))
    expected = circle_tf.CircleLoss(reduction=reduction)(ids, rows)
    np.testing.assert_allclose(layer.losses, [expected], rtol=1e-6)


def test_pairwise_layer_adds_nothing_unless_asked():
    rows, ids = rows_and_ids()
    layer = circle_tf.PairwiseCircle()
    layer((tf.constant(rows), tf.constant(ids)))
    assert layer.losses == []


@pytest.mark.parametrize("kind", ["pairs", "classes", "memory"])
def test_the_weight_is_of_the_models_loss_alone(kind):
    rows, ids = map(tf.constant, rows_and_ids())
    keras.utils.set_random_seed(0)
    layer = LAYERS[kind](loss_weight=0.25)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        values = layer((rows, ids))
        (loss,) = layer.losses
    gradient = tape.gradient(loss, rows)
    plain = type(layer).from_config({**layer.get_config(), "loss_weight": 1.0})
    plain.build([(None, 6), (None,)])
    plain.set_weights(layer.get_weights())
    with tf.GradientTape() as tape:
        tape.watch(rows)
        np.testing.assert_array_equal(plain((rows, ids)), values)
    np.testing.assert_allclose(loss, 0.25 * float(plain.losses[0]), rtol=1e-6)
    expected = tape.gradient(plain.losses[0], rows)
    np.testing.assert_allclose(gradient, 0.25 * expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_weight": -1.0}, "loss_weight must be a finite number of 0 or more; found -1"),
        ({"loss_weight": float("nan")}, "loss_weight must be .*found nan"),
        ({"loss_weight": 2.0, "as_model_loss": False}, "=2.0 is of the loss that as_model_loss=Tr"),
    ],
)
def test_bad_weights(options, message):
    with pytest.raises(ValueError, match=message):
        circle_tf.PairwiseCircle(**{"as_model_loss": True, **options})


def test_as_model_loss_wants_a_number():
    with pytest.raises(ValueError, match="as_model_loss=True wants a reduction to one number"):
        circle_tf.PairwiseCircle(as_model_loss=True, reduction="none")


LAYERS = {
    "pairs": lambda **o: circle_tf.PairwiseCircle(gamma=8.0, as_model_loss=True, **o),
    "classes": lambda **o: circle_tf.CircleHead(4, gamma=8.0, as_model_loss=True, **o),
    "memory": lambda **o: circle_tf.CrossBatchMemory(20, gamma=8.0, as_model_loss=True, **o),
}


def weighted(kind):
    keras.utils.set_random_seed(0)
    features, ids = keras.Input((6,)), keras.Input((), dtype="int64")
    losses = LAYERS[kind]()([circle_tf.UnitEmbedding(4)(features), ids])
    model = circle_tf.EmbeddingModel([features, ids], losses)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    return model


@stacks.needs_keras_3
@pytest.mark.parametrize("kind", ["pairs", "classes"])
def test_sample_weights_of_fit_weigh_the_losses_of_layers(kind):
    rows, ids = rows_and_ids()
    weights = np.linspace(0, 2, 12, dtype=np.float32)
    model = weighted(kind)
    values = model.predict([rows, ids], batch_size=12, verbose=0)
    options = {"batch_size": 12, "verbose": 0}
    found = model.evaluate([rows, ids], ids, sample_weight=weights, **options)
    np.testing.assert_allclose(found, np.mean(values * weights), rtol=1e-5)
    found = model.fit([rows, ids], ids, sample_weight=weights, **options).history["loss"]
    np.testing.assert_allclose(found, [np.mean(values * weights)], rtol=1e-5)
    plain = weighted(kind)
    plain.fit([rows, ids], **options)
    assert np.abs(plain.get_weights()[0] - model.get_weights()[0]).max() > 1e-3
    for call in (plain.fit, plain.evaluate):
        with pytest.raises(ValueError, match="sample_weight wants targets.*ids as y"):
            call([rows, ids], sample_weight=weights, **options)
    # Keras makes sample weights of class weights.
    by_class = {0: 2.0, 1: 0.5, 2: 1.0, 3: 0.0}
    model, targets = weighted(kind), ids.astype(np.int32)
    options = {"class_weight": by_class, "batch_size": 12, "verbose": 0}
    found = model.fit([rows, ids], targets, **options).history["loss"]
    weights = np.array([by_class[one] for one in ids])
    np.testing.assert_allclose(found, [np.mean(values * weights)], rtol=1e-5)


@stacks.needs_keras_3
def test_sample_weights_by_output_are_refused_with_what_to_do():
    rows, ids = rows_and_ids()
    features, numbers = keras.Input((6,)), keras.Input((), dtype="int64")
    unit = circle_tf.UnitEmbedding(4)(features)
    pairs = circle_tf.PairwiseCircle(as_model_loss=True, name="pairs")([unit, numbers])
    model = circle_tf.EmbeddingModel([features, numbers], [unit, pairs])
    model.compile("sgd", ["mse", None], jit_compile=False)
    weights = [np.ones(12, np.float32)] * 2
    with pytest.raises(ValueError, match="pairs: .*one array .B.; found a (list|tuple) of weights"):
        model.fit([rows, ids], [np.zeros((12, 4)), ids], sample_weight=weights, verbose=0)


def test_wide_ids_pass_a_functional_model_exactly():
    embeddings, ids = keras.Input((6,)), keras.Input((), dtype="int64")
    model = keras.Model([embeddings, ids], circle_tf.PairwiseCircle()([embeddings, ids]))
    rows, _ = rows_and_ids(size=4)
    wide = np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1])
    found = model.predict([rows, wide], batch_size=4, verbose=0)
    np.testing.assert_allclose(
        found, circle_tf.CircleLoss(reduction="none")(wide, rows), rtol=1e-5, atol=1e-6
    )
    assert found.max() > 0


def test_model_with_two_outputs_trains_on_its_layers_loss():
    pixels, ids = keras.Input((6,)), keras.Input((), dtype="int64")
    unit = circle_tf.UnitEmbedding(4)(pixels)
    losses = circle_tf.PairwiseCircle(as_model_loss=True)([unit, ids])
    model = keras.Model([pixels, ids], [unit, losses])
    model.compile("adam", jit_compile=False)
    rows, labels = rows_and_ids()
    history = model.fit([rows, labels], epochs=20, batch_size=12, verbose=0).history["loss"]
    assert history[-1] < history[0]


def every_layer():
    return [
        circle_tf.UnitEmbedding(5, use_bias=False, kernel_regularizer="l2", name="a"),
        circle_tf.CosineClassifier(7, name="b"),
        circle_tf.PairwiseCircle(0.1, 32.0, reduction="sum", as_model_loss=True, name="c"),
        circle_tf.CircleHead(9, 0.1, 32.0, reduction="sum", detach_weights=False, name="d"),
    ]


@pytest.mark.parametrize("layer", every_layer(), ids=lambda layer: type(layer).__name__)
def test_config_round_trip(layer):
    restored = keras.layers.deserialize(keras.layers.serialize(layer))
    assert type(restored) is type(layer)
    assert restored.get_config() == layer.get_config()
