"""Both kinds of model learn unseen classes with both losses, on both sets that need no download."""

import functools

import keras
import ml_collections
import pytest

import circle_tf
from trainers import datasets

STEPS = 60
P, K = 8, 4


@functools.cache
def load(name):
    config = {"name": name, "image_size": 16, "channels": 1, "test_fraction": 0.5, "seed": 0}
    if name == "digits":
        config["image_size"] = 8
    return datasets.load(ml_collections.ConfigDict({**config, "path": ""}))


def build(kind, data, *, class_level):
    keras.utils.set_random_seed(0)
    pixels = keras.Input(data.image_shape)
    maps = keras.layers.Rescaling(1 / 255)(pixels)
    for filters in (16, 32):
        maps = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(maps)
        maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
        maps = keras.layers.MaxPooling2D()(maps)
    unit = circle_tf.UnitEmbedding(32)(keras.layers.Flatten()(maps))
    embedding = keras.Model(pixels, unit)
    outputs = unit
    if class_level:
        outputs = circle_tf.CosineClassifier(len(data.train.class_names))(unit)
    return embedding, kind(pixels, outputs)


def map_at_r(embedding, split):
    unit = embedding.predict(split.images(), batch_size=512, verbose=0)
    return circle_tf.mean_average_precision_at_r(unit, split.labels)


# Slow: eight short trainings of a small net, the shortest in which chance cannot pass.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "glyphs"])
@pytest.mark.parametrize("class_level", [False, True], ids=["pairwise", "class_level"])
@pytest.mark.parametrize("kind", [keras.Model, circle_tf.EmbeddingModel])
def test_unseen_classes_are_learnt(kind, class_level, name):
    data = load(name)
    embedding, model = build(kind, data, class_level=class_level)
    before = map_at_r(embedding, data.test)
    loss = (
        circle_tf.ClassCircleLoss(gamma=64.0) if class_level else circle_tf.CircleLoss(0.25, 64.0)
    )
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    batches = circle_tf.pk_dataset(
        data.train.examples,
        data.train.labels,
        classes_per_batch=min(P, len(data.train.class_names)),
        examples_per_class=K,
    )
    history = model.fit(batches, epochs=2, steps_per_epoch=STEPS // 2, shuffle=False, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < losses[0]
    assert map_at_r(embedding, data.test) > before + 0.03
