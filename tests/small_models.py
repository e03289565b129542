"""A small compiled model under any strategy, and data for it."""

import functools

import keras
import numpy as np
import tensorflow as tf

import circle_tf
from tests import strategies

__all__ = ["mirrored", "rows_and_ids", "small", "unit_layers"]


@functools.cache
def mirrored(count):
    return strategies.mirrored() if count == 2 else tf.distribute.MirroredStrategy(["CPU:0"])


def small(strategy, layers, *, loss=None, optimizer="sgd", shape=(6,), **options):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        x = features = keras.Input(shape)
        for layer in layers():
            x = layer(x)
        model = circle_tf.EmbeddingModel(features, x)
        model.compile(optimizer, loss or circle_tf.CircleLoss(gamma=8.0), **options)
    return model


def unit_layers():
    return [circle_tf.UnitEmbedding(4)]


def rows_and_ids(count=16):
    rng = np.random.default_rng(1)
    return rng.normal(size=(count, 6)).astype(np.float32), np.arange(count) % 4
