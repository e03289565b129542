import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.fine_tuning import FineTuning
from circle_tf.optimizers import extension
from tests import stacks
from tests.small_models import mirrored, rows_and_ids

ROWS, IDS = rows_and_ids(16)


def built(kind=circle_tf.EmbeddingModel, *, optimizer="sgd", loss=None, strategy=None, **options):
    """A compiled model and its backbone of two blocks."""
    with (strategy or tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((6,))
        for number in (1, 2):
            x = keras.layers.Dense(5, name=f"block_{number}_dense")(x)
            x = keras.layers.BatchNormalization(name=f"block_{number}_bn")(x)
        backbone = keras.Model(inputs, x, name="backbone")
        model = kind(inputs, circle_tf.UnitEmbedding(4)(x))
        model.compile(optimizer, loss or circle_tf.CircleLoss(gamma=8.0), **options)
    return model, backbone


def fit(model, tuning, *, steps):
    data = tf.data.Dataset.from_tensors((ROWS, IDS)).repeat()
    model.fit(data, steps_per_epoch=steps, callbacks=[tuning], shuffle=False, verbose=0)


def changed(before, after):
    return [not np.array_equal(one, other) for one, other in zip(before, after, strict=True)]


@pytest.mark.parametrize("kind", [keras.Model, circle_tf.EmbeddingModel])
def test_the_backbone_stands_still_to_the_bit_until_it_is_unfrozen(kind):
    model, backbone = built(kind, optimizer=keras.optimizers.AdamW(0.01))
    tuning = FineTuning(backbone, freeze_steps=3)
    assert tuning.frozen is None
    start, head = backbone.get_weights(), model.layers[-1].get_weights()
    fit(model, tuning, steps=2)
    assert tuning.frozen and changed(start, backbone.get_weights()) == [False] * 12
    assert changed(head, model.layers[-1].get_weights()) == [True] * 2
    fit(model, tuning, steps=1)
    assert not tuning.frozen and changed(start, backbone.get_weights()) == [False] * 12
    fit(model, tuning, steps=1)
    assert sum(changed(start, backbone.get_weights())) >= 11  # A bias before BN has no gradient.


def test_after_unfreezing_only_the_blocks_from_the_named_one_train():
    model, backbone = built()
    before = backbone.get_weights()
    fit(model, FineTuning(backbone, unfreeze_from="block_2"), steps=2)
    after = changed(before, backbone.get_weights())
    assert not any(after[:6]) and after[6] and after[10] and after[11]


def test_frozen_batch_normalization_keeps_weights_and_statistics():
    model, backbone = built()
    before = backbone.get_weights()
    fit(model, FineTuning(backbone, freeze_batch_normalization=True), steps=2)
    names = [weight.path.split("/")[0] for weight in backbone.weights]
    after = changed(before, backbone.get_weights())
    moved = {name for name, moves in zip(names, after, strict=True) if moves}
    assert moved == {"block_1_dense", "block_2_dense"}


def test_a_backbone_that_never_trains_and_layers_frozen_before_stay_so():
    model, backbone = built()
    before = backbone.get_weights()
    tuning = FineTuning(backbone, unfreeze_from=1)
    assert tuning.never_trains
    fit(model, tuning, steps=3)
    assert tuning.frozen and changed(before, backbone.get_weights()) == [False] * 12
    model, backbone = built()
    backbone.get_layer("block_1_dense").trainable = False
    fit(model, FineTuning(backbone, freeze_steps=1), steps=3)
    assert changed(before, backbone.get_weights())[:6] == [False, False, True, True, True, True]


def test_factors_fall_with_depth_and_scale_the_step():
    steps = []
    for options in ({}, {"learning_rate_factor": 0.5, "layer_decay": 0.1}):
        model, backbone = built(optimizer=keras.optimizers.SGD(0.1))
        start = model.get_weights()
        tuning = FineTuning(backbone, **options)
        fit(model, tuning, steps=1)
        steps.append([end - begin for end, begin in zip(model.get_weights(), start, strict=True)])
    assert [b.learning_rate_factor for b in tuning.blocks] == pytest.approx([0.005, 0.05])
    factors = [0.005] * 4 + [1] * 2 + [0.05] * 4 + [1] * 2 + [1] * 2  # Statistics have none.
    for plain, slow, factor in zip(*steps, factors, strict=True):
        np.testing.assert_allclose(slow, factor * plain, rtol=1e-3, atol=3e-7)


def test_clipping_by_the_norm_of_all_counts_what_is_trained():
    """Clipped to 1e-3 for all, a step of SGD by 1 is 1e-3 long, however many variables it has."""
    model, backbone = built(optimizer=keras.optimizers.SGD(1.0, global_clipnorm=1e-3))
    head = np.concatenate([w.ravel() for w in model.layers[-1].get_weights()])
    fit(model, FineTuning(backbone, freeze_steps=5), steps=1)
    after = np.concatenate([w.ravel() for w in model.layers[-1].get_weights()])
    assert np.linalg.norm(after - head) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("stop", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_training_goes_on_in_its_phase_as_one_that_was_not_stopped(stop):
    options = {"freeze_steps": 3, "learning_rate_factor": 0.5}
    whole, backbone = built(optimizer=keras.optimizers.Adam(0.01))
    fit(whole, FineTuning(backbone, **options), steps=5)
    first, backbone = built(optimizer=keras.optimizers.Adam(0.01))
    fit(first, FineTuning(backbone, **options), steps=stop)
    rest, backbone = built(optimizer=keras.optimizers.Adam(0.01))
    tuning = FineTuning(backbone, **options)
    tuning.prepare(rest)
    rest.set_weights(first.get_weights())
    for ours, theirs in zip(rest.optimizer.variables, first.optimizer.variables, strict=True):
        ours.assign(theirs)
    fit(rest, tuning, steps=5 - stop)
    for one, other in zip(whole.get_weights(), rest.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@stacks.needs_own_steps
@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_replicas_equal_one_device_in_both_phases(accumulation):
    found = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with strategy.scope():
            optimizer = keras.optimizers.AdamW(0.01, global_clipnorm=0.5)
        options = {"strategy": strategy, "gradient_accumulation": accumulation}
        model, backbone = built(optimizer=optimizer, **options)
        tuning = FineTuning(
            backbone, freeze_steps=2, layer_decay=0.5, freeze_batch_normalization=True
        )
        fit(model, tuning, steps=4 * accumulation)
        assert not tuning.frozen and int(model.optimizer.iterations.numpy()) == 4
        found.append(model.get_weights())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_one_training_step_is_traced_for_each_phase():
    model, backbone = built()
    tuning = FineTuning(backbone, freeze_steps=2)
    functions = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            functions.append(self.model.train_function)

    data = tf.data.Dataset.from_tensors((ROWS, IDS)).repeat()
    options = {"steps_per_epoch": 2, "callbacks": [tuning, Watch()]}
    for _ in range(3):
        model.fit(data, shuffle=False, verbose=0, **options)
    assert [function is functions[0] for function in functions] == [True, *[False] * 5]
    assert all(function is functions[1] for function in functions[1:])


def test_what_is_saved_loads_without_the_callback(tmp_path):
    model, backbone = built(optimizer=keras.optimizers.Adam(0.01))
    fit(model, FineTuning(backbone, freeze_steps=1, layer_decay=0.5), steps=2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(extension.plain(loaded.optimizer)) is keras.optimizers.Adam
    np.testing.assert_allclose(loaded(ROWS), model(ROWS), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"freeze_steps": -1}, "freeze_steps"),
        ({"learning_rate_factor": 0.0}, r"learning_rate_factor must be above 0; found 0\.0.*=1"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0, up to 1; found 1.5"),
        ({"unfreeze_from": "block_3"}, "no block or layer 'block_3'"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FineTuning(built()[1], **options)


def test_a_model_that_does_not_fit_is_refused():
    model, backbone = built()
    for layer in (backbone, backbone.get_layer("block_2_dense")):
        backbone.get_layer("block_2_bn").trainable = layer.trainable = False
        with pytest.raises(ValueError, match="the block 'block_[12]' is to train, but is frozen"):
            FineTuning(backbone)
        backbone.trainable = True
    with pytest.raises(ValueError, match="does not hold all weights of the backbone 'backbone'"):
        FineTuning(built()[1]).prepare(model)
    model, backbone = built(steps_per_execution=2)
    with pytest.raises(ValueError, match="a multiple of steps_per_execution, 2, .*found 3"):
        FineTuning(backbone, freeze_steps=3).prepare(model)
    model, backbone = built()
    fit(model, FineTuning(backbone, unfreeze_from=1), steps=1)
    with pytest.raises(ValueError, match="the optimizer has made its variables while some of"):
        FineTuning(backbone).prepare(model)
