"""Losses, metrics and steps of any kind over two replicas: as on one device, or refused by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import addons
from tests import stacks
from tests.combinations import quick
from tests.small_models import mirrored, rows_and_ids, small, unit_layers

pytestmark = stacks.needs_own_steps


class OwnCall(keras.losses.Loss):
    """Has its own `__call__`, and looks at rows together by a loss of the house and by itself."""

    def __call__(self, y_true, y_pred, sample_weight=None):
        pairs = circle_tf.CircleLoss(gamma=8.0)(y_true, y_pred, sample_weight)
        return pairs + tf.reduce_mean(y_pred[:, 0]) ** 2


class Variance(keras.losses.Loss):
    """One value per example, which the others have a part in."""

    def call(self, y_true, y_pred):
        centred = y_pred - tf.reduce_mean(y_pred, axis=0)
        return tf.reduce_sum(centred**2, axis=1) + 0 * tf.cast(y_true, y_pred.dtype)


def softmax_layers():
    return [keras.layers.Dense(4, activation="sigmoid")]


COUPLED = {
    "circle": (lambda: keras.losses.Circle(gamma=8.0), unit_layers, False),
    "circle, sum": (lambda: keras.losses.Circle(gamma=8.0, reduction="sum"), unit_layers, False),
    "dice": (keras.losses.Dice, softmax_layers, True),
    "tversky": (keras.losses.Tversky, softmax_layers, True),
    "a function": (lambda: lambda y, p: tf.reduce_max(p) + 0 * tf.reduce_sum(y), unit_layers, True),
    "own call": (OwnCall, unit_layers, False),
    "variance, none": (lambda: Variance(reduction="none"), unit_layers, False),
    "triplets": (addons.losses.TripletSemiHardLoss, unit_layers, False),
    "lifted": (addons.losses.LiftedStructLoss, unit_layers, False),
    "similarity of columns": (lambda: keras.losses.CosineSimilarity(axis=0), unit_layers, True),
}


# Two to four seconds each.
@pytest.mark.parametrize("name", quick(list(COUPLED), among=["circle", "dice", "own call"]))
def test_losses_that_may_look_at_rows_together_see_the_global_batch(name):
    loss, layers, one_hot = COUPLED[name]
    rows, ids = rows_and_ids(33)  # The last batch leaves one replica without rows.
    targets = np.eye(4, dtype=np.float32)[ids] if one_hot else ids
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            optimizer = keras.optimizers.SGD(0.01)
        model = small(strategy, layers, loss=loss(), optimizer=optimizer)
        options = {"batch_size": 16, "shuffle": False, "verbose": 0}
        losses = model.fit(rows, targets, epochs=2, **options).history["loss"]
        evaluated = model.evaluate(rows[:32], targets[:32], batch_size=16, verbose=0)
        results.append([*model.get_weights(), np.array([*losses, evaluated])])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def make_of(kind, strategy, **options):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features = keras.Input((6,))
        model = kind(features, circle_tf.UnitEmbedding(4)(features))
        model.compile(keras.optimizers.SGD(0.05), circle_tf.CircleLoss(gamma=8.0), **options)
    return model


def held_to_one_device(kind, **options):
    rows, ids = rows_and_ids(33)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = make_of(kind, strategy, **options)
        fit = {"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0}
        losses = model.fit(rows, ids, **fit).history["loss"]
        results.append(
            [*model.get_weights(), np.array([*losses, model.evaluate(rows, ids, verbose=0)])]
        )
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


class OwnLoss(circle_tf.EmbeddingModel):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + tf.reduce_mean(x[:, :1] * y_pred) ** 2


class Scales(circle_tf.EmbeddingModel):
    def train_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        return super().train_step((x * 2, y))


class OwnTraining(circle_tf.EmbeddingModel):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class OwnEvaluation(circle_tf.EmbeddingModel):
    def test_step(self, data):
        return {"loss": self.compute_loss(y=data[1], y_pred=self(data[0]))}


@pytest.mark.parametrize("kind", [OwnLoss, Scales])
def test_subclasses_with_a_loss_of_their_own_or_around_the_step_equal_one_device(kind):
    held_to_one_device(kind)


def test_steps_that_leave_out_the_house_s_are_refused_where_it_is_needed():
    alone = tf.distribute.get_strategy()
    make_of(OwnTraining, alone).fit(*rows_and_ids(), batch_size=16, verbose=0)
    message = r"OwnTraining.train_step leaves out.*super\(\).train_step\(data\)"
    for strategy, options in (
        (mirrored(2), {}),
        (alone, {"gradient_accumulation": 2}),
        (alone, {"cached_gradient_batch": 4}),
    ):
        with pytest.raises(ValueError, match=message):
            make_of(OwnTraining, strategy, **options)
    assert make_of(OwnEvaluation, alone, gradient_accumulation=2) is not None
    with pytest.raises(ValueError, match="OwnEvaluation.test_step leaves out"):
        make_of(OwnEvaluation, mirrored(2))


class Largest(keras.metrics.Metric):
    """A state that does not add up."""

    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.seen = self.add_weight(name="seen", initializer="zeros")
        self.count = self.add_weight(name="count", dtype="int64", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.seen.assign(tf.maximum(self.seen, tf.reduce_max(y_pred)))
        self.count.assign_add(tf.shape(y_pred, out_type=tf.int64)[0])

    def result(self):
        return {"largest": tf.identity(self.seen), "rows": tf.cast(self.count, "float32")}


def test_metrics_of_unknown_classes_see_the_global_batch():
    def spread(y_true, y_pred):
        return tf.math.reduce_std(y_pred) + 0 * tf.cast(tf.reduce_sum(y_true), y_pred.dtype)

    rows, ids = rows_and_ids(33)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            metrics = [Largest(), spread, circle_tf.metrics.ValidAnchors()]
        model = small(strategy, unit_layers, metrics=metrics)
        history = model.fit(rows, ids, epochs=2, batch_size=16, shuffle=False, verbose=0).history
        evaluated = model.evaluate(rows, ids, batch_size=16, verbose=0, return_dict=True)
        results.append({**history, **{f"evaluate {k}": v for k, v in evaluated.items()}})
    assert results[0]["rows"] == [33.0, 33.0]
    assert {"largest", "spread", "valid_anchors"} < set(results[0])
    for name, values in results[0].items():
        np.testing.assert_allclose(results[1][name], values, rtol=1e-5, err_msg=name)
