"""Both kinds of model learn with both losses, on both sets that need no download."""

import functools

import keras
import ml_collections
import numpy as np
import pytest

import circle_tf
from trainers import datasets

STEPS = 80
CLASSES = 40  # of glyphs: so few that a short training sees each of them often


@functools.cache
def load(name):
    config = {"name": name, "image_size": 16, "channels": 1, "test_fraction": 0.5, "seed": 0}
    if name == "digits":
        config["image_size"] = 8
    return datasets.load(ml_collections.ConfigDict({**config, "path": ""}))


def examples(name):
    """Images and labels of the first classes to train on, and `(H, W, C)`."""
    data = load(name)
    rows = np.flatnonzero(data.train.labels < CLASSES)
    return data.train.images(rows), data.train.labels[rows], data.image_shape


def build(kind, image_shape, *, classes, class_level):
    keras.utils.set_random_seed(0)
    pixels = keras.Input(image_shape)
    maps = keras.layers.Rescaling(1 / 255)(pixels)
    for filters in (16, 32):
        maps = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(maps)
        maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
        maps = keras.layers.MaxPooling2D()(maps)
    unit = circle_tf.UnitEmbedding(32)(keras.layers.Flatten()(maps))
    outputs = circle_tf.CosineClassifier(classes)(unit) if class_level else unit
    return keras.Model(pixels, unit), kind(pixels, outputs)


def map_at_r(embedding, images, labels):
    unit = embedding.predict(images, batch_size=512, verbose=0)
    return circle_tf.mean_average_precision_at_r(unit, labels)


# The shortest trainings of a small net in which chance cannot pass.
@pytest.mark.parametrize(
    ("kind", "class_level", "name"),
    [
        (keras.Model, False, "digits"),
        (circle_tf.EmbeddingModel, False, "glyphs"),
        (circle_tf.EmbeddingModel, True, "glyphs"),
    ],
)
def test_training_gathers_the_classes(kind, class_level, name):
    images, labels, image_shape = examples(name)
    classes = labels.max() + 1
    embedding, model = build(kind, image_shape, classes=classes, class_level=class_level)
    before = map_at_r(embedding, images, labels)
    loss = circle_tf.ClassCircleLoss() if class_level else circle_tf.CircleLoss()
    model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
    batches = circle_tf.pk_dataset(
        images, labels, classes_per_batch=min(8, classes), examples_per_class=4
    )
    history = model.fit(batches, epochs=2, steps_per_epoch=STEPS // 2, shuffle=False, verbose=0)
    losses = history.history["loss"]
    assert losses[-1] < 0.8 * losses[0]
    assert map_at_r(embedding, images, labels) > before + 0.1
