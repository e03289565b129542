"""Losses on outputs they are not for are told of, and no others."""

import warnings

import keras
import pytest

import circle_tf
from circle_tf import baselines
from tests import stacks, strategies

pytestmark = stacks.needs_keras_3

PAIR = [circle_tf.CircleLoss, baselines.TripletLoss, baselines.UnifiedLoss]
CLASS = [circle_tf.ClassCircleLoss, baselines.ArcFaceLoss, baselines.ProxyAnchorLoss]


def ends():
    inputs = keras.Input((6,))
    embeddings = circle_tf.UnitEmbedding(4, name="embedding")(inputs)
    return inputs, embeddings, circle_tf.CosineClassifier(3, name="classes")(embeddings)


@pytest.mark.parametrize("make", CLASS)
def test_class_level_losses_on_embeddings(make):
    inputs, embeddings, _ = ends()
    words = f"{make.__name__} takes cosines .* output 'embedding' is unit embeddings: .* 4 numbers"
    with pytest.warns(UserWarning, match=words):
        circle_tf.EmbeddingModel(inputs, embeddings).compile("sgd", make())


@pytest.mark.parametrize("make", [*PAIR, lambda: circle_tf.CrossBatchCircleLoss(8)])
def test_losses_on_embeddings_on_cosines(make):
    inputs, _, cosines = ends()
    with pytest.warns(UserWarning, match="takes embeddings, .* 'classes' is cosines to 3 classes"):
        circle_tf.EmbeddingModel(inputs, cosines).compile("sgd", make())


def test_one_of_several_outputs():
    inputs, *outputs = ends()
    losses = [circle_tf.CircleLoss(), circle_tf.CircleLoss()]
    with pytest.warns(UserWarning, match="'classes'") as found:
        circle_tf.EmbeddingModel(inputs, outputs).compile("sgd", losses)
    assert len(found) == 1
    named = dict(zip("ec", outputs, strict=True))
    with pytest.warns(UserWarning, match="'embedding'") as found:
        model = circle_tf.EmbeddingModel(inputs, named)
        model.compile("sgd", {"e": circle_tf.ClassCircleLoss()})
    assert len(found) == 1


@stacks.needs_own_steps
def test_on_replicas_as_well():
    with strategies.mirrored().scope():
        inputs, embeddings, _ = ends()
        model = circle_tf.EmbeddingModel(inputs, embeddings)
        with pytest.warns(UserWarning, match="ClassCircleLoss takes cosines"):
            model.compile("sgd", circle_tf.ClassCircleLoss())


@pytest.mark.parametrize("make", [*PAIR, *CLASS, None, lambda: "mse"])
def test_the_right_output_and_unknown_ones_are_left_alone(make):
    inputs, embeddings, cosines = ends()
    output = cosines if make in CLASS else embeddings
    layer = keras.layers.Dense(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        circle_tf.EmbeddingModel(inputs, output).compile("sgd", make and make())
        unknown = circle_tf.EmbeddingModel(inputs, layer(layer(inputs[:, :3])))
        unknown.compile("sgd", make and make())
