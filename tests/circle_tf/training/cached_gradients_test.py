"""Cached gradients are those of the whole batch, to what layers see of a micro-batch."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.training import cached_gradients
from tests import stacks, strategies
from tests.combinations import diagonal

pytestmark = stacks.needs_own_steps

ROWS, CLASSES = 26, 5


def data(rows=ROWS):
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 8, 8, 1)).astype(np.float32), np.arange(rows) % CLASSES


def build(layers=(), *, loss=None, optimizer=None, regularizer=None, policy="float32", **options):
    keras.utils.set_random_seed(0)
    pixels = keras.Input((8, 8, 1))
    hidden = keras.layers.Conv2D(4, 3, activation="relu", dtype=policy)(pixels)
    for layer in layers:
        hidden = layer(hidden)
    hidden = keras.layers.Flatten(dtype=policy)(hidden)
    unit = circle_tf.UnitEmbedding(6, kernel_regularizer=regularizer, dtype=policy)(hidden)
    model = circle_tf.EmbeddingModel(pixels, unit)
    # Plain descent with rate 1: the change of the weights is the gradient.
    model.compile(
        optimizer or keras.optimizers.SGD(1.0), loss or circle_tf.CircleLoss(gamma=8.0), **options
    )
    return model


def step(model, rows=ROWS, **options):
    """Logs, and changes of the weights, of one step on the whole batch."""
    before = model.get_weights()
    pixels, ids = data(rows)
    history = model.fit(pixels, ids, batch_size=rows, shuffle=False, verbose=0, **options).history
    changes = [new - old for new, old in zip(model.get_weights(), before, strict=True)]
    return {name: values[0] for name, values in history.items()}, changes


def hold_equal(one, other, *, tolerance=1e-5):
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    largest = max(abs(change).max() for change in other[1])
    assert largest > 1e-3
    for ours, theirs in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=tolerance * max(largest, 1))


# Even, uneven, one row left over, single rows, the whole batch, more than the batch.
@pytest.mark.parametrize(("size", "jit"), diagonal([13, 8, 5, 1, 26, 100], [False, True]))
def test_gradients_are_those_of_the_whole_batch(size, jit):
    found = step(build(cached_gradient_batch=size, jit_compile=jit))
    hold_equal(found, step(build(jit_compile=jit)))


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": lambda: keras.optimizers.SGD(1.0, global_clipnorm=0.05)},
        {"optimizer": lambda: keras.optimizers.SGD(1.0, clipvalue=0.01)},
        {"regularizer": lambda: keras.regularizers.L2(0.1)},
        {"loss": lambda: circle_tf.CircleLoss(gamma=8.0, reduction="none")},
        {"loss": lambda: circle_tf.CircleLoss(gamma=8.0, block_size=None)},
        {"loss": lambda: keras.losses.Circle(gamma=8.0)},
        {"metrics": lambda: circle_tf.metrics.monitors(margin=0.4)},
        {"steps_per_execution": lambda: 2},
        {"run_eagerly": lambda: True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_everything_else_of_compile_works_as_ever(options):
    results = []
    for size in (None, 7):
        made = {name: make() for name, make in options.items()}
        results.append(step(build(cached_gradient_batch=size, **made)))
    hold_equal(*results)


def test_sample_weights_belong_to_their_rows():
    weights = np.linspace(0.1, 3, ROWS)
    results = [step(build(cached_gradient_batch=size), sample_weight=weights) for size in (7, None)]
    hold_equal(*results)


def test_class_weights_and_several_inputs_and_outputs():
    def make(size):
        keras.utils.set_random_seed(0)
        pixels, side = keras.Input((8, 8, 1), name="pixels"), keras.Input((3,), name="side")
        hidden = keras.layers.Concatenate()([keras.layers.Flatten()(pixels), side])
        unit = circle_tf.UnitEmbedding(6)(hidden)
        cosines = circle_tf.CosineClassifier(CLASSES)(unit)
        unused = keras.layers.Dense(2, name="unused")(hidden)
        outputs = {"cosines": cosines, "unit": unit, "unused": unused}
        model = circle_tf.EmbeddingModel({"pixels": pixels, "side": side}, outputs)
        losses = {"cosines": circle_tf.ClassCircleLoss(gamma=8.0), "unit": circle_tf.CircleLoss()}
        model.compile(keras.optimizers.SGD(1.0), losses, cached_gradient_batch=size)
        return model

    pixels, ids = data()
    side = np.random.default_rng(1).normal(size=(ROWS, 3)).astype(np.float32)
    results = []
    for size in (7, None):
        model = make(size)
        dataset = tf.data.Dataset.from_tensors(
            ({"pixels": pixels, "side": side}, {"cosines": ids, "unit": ids})
        )
        with pytest.warns(UserWarning, match=r"variables \['unused/kernel', 'unused/bias'\]"):
            losses = model.fit(dataset, epochs=3, shuffle=False, verbose=0).history["loss"]
        results.append([*model.get_weights(), np.array(losses)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_embeddings_looked_up_by_row():
    """Their gradients are sparse in each micro-batch."""

    def make(size):
        keras.utils.set_random_seed(0)
        words = keras.Input((3,), dtype="int32")
        hidden = keras.layers.Flatten()(keras.layers.Embedding(9, 4)(words))
        model = circle_tf.EmbeddingModel(words, circle_tf.UnitEmbedding(4)(hidden))
        model.compile(keras.optimizers.SGD(1.0), "mse", cached_gradient_batch=size)
        return model

    words = np.random.default_rng(0).integers(0, 9, (10, 3))
    results = []
    for size in (4, None):
        model = make(size)
        model.fit(words, np.zeros((10, 4)), batch_size=10, verbose=0)
        results.append(model.get_weights())
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


class Noise(keras.layers.Layer):
    """Adds random numbers to the rows, and notes the sum of what went through."""

    def __init__(self):
        super().__init__()
        self.generator = keras.random.SeedGenerator(5)

    def build(self, shape):
        self.count = self.add_weight(name="count", shape=(), dtype="int64", trainable=False)
        self.drift = self.add_weight(name="drift", shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign(self.count + tf.shape(inputs, out_type=tf.int64)[0])
        # State that acts on the outputs: the passes agree only if both see it move alike.
        self.drift.assign(self.drift + 0.1)
        noise = keras.random.normal(tf.shape(inputs), seed=self.generator)
        return inputs + noise + self.drift


def test_both_passes_see_the_same_masks_and_states(monkeypatch):
    """The embeddings that the loss saw are those that are differentiated."""
    seen = []
    forward = cached_gradients.forward_pass.forward

    def spy(*args, **options):
        passed = forward(*args, **options)
        seen.append(passed.outputs.numpy())
        return passed

    monkeypatch.setattr(cached_gradients.forward_pass, "forward", spy)
    noise, dropout = Noise(), keras.layers.Dropout(0.5, seed=1)
    model = build([noise, dropout], cached_gradient_batch=10, run_eagerly=True)
    step(model)
    first, second = seen[:3], seen[3:]
    assert [len(part) for part in first] == [10, 10, 6] and len(second) == 3
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    # As often as one pass over the micro-batches does.
    assert int(noise.count.numpy()) == 26
    assert float(noise.drift.numpy()) == pytest.approx(0.3)
    assert dropout.seed_generator.state.numpy().tolist() == [1, 3]


def test_moving_statistics_are_those_of_one_pass_by_micro_batches():
    norm = keras.layers.BatchNormalization(momentum=0.9)
    model = build([norm], cached_gradient_batch=10)
    convolve = keras.Model(model.input, model.layers[1].output)
    pixels, _ = data()
    mean, variance = np.zeros(4), np.ones(4)
    for part in (pixels[:10], pixels[10:20], pixels[20:]):
        features = convolve(part).numpy()
        mean = 0.9 * mean + 0.1 * features.mean((0, 1, 2))
        variance = 0.9 * variance + 0.1 * features.var((0, 1, 2))
    step(model)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, atol=1e-5)


def test_a_batch_norm_that_does_not_train_changes_nothing():
    def frozen():
        return [keras.layers.BatchNormalization(trainable=False)]

    hold_equal(step(build(frozen(), cached_gradient_batch=7)), step(build(frozen())))


def test_loss_scaling_skips_what_is_not_finite_and_goes_on():
    def make(size):
        inner = keras.optimizers.SGD(0.1)
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
        return build(optimizer=optimizer, policy="mixed_float16", cached_gradient_batch=size)

    results = []
    for size in (7, None):
        model = make(size)
        result = step(model)
        results.append(result)
        assert float(model.optimizer.dynamic_scale.numpy()) == 64.0
        pixels, ids = data()
        pixels[-1] = 1e38
        before = model.get_weights()
        model.fit(pixels, ids, batch_size=ROWS, verbose=0)
        for old, new in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
        assert float(model.optimizer.dynamic_scale.numpy()) == 32.0
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_with_accumulation_of_batches():
    results = []
    for size in (7, None):
        model = build(cached_gradient_batch=size, gradient_accumulation=2)
        step(model)
        results.append(step(model))
    hold_equal(*results)


def test_with_a_memory():
    results = []
    for size in (7, None):
        model = build(
            loss=circle_tf.CrossBatchCircleLoss(40, gamma=8.0), cached_gradient_batch=size
        )
        step(model)
        results.append(step(model))
        assert int(model.memory.rows_seen.numpy()) == 2 * ROWS
    hold_equal(*results)


def test_saved_and_loaded_it_stays(tmp_path):
    path = str(tmp_path / "model.keras")
    model = build(cached_gradient_batch=7)
    step(model)
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.get_compile_config()["cached_gradient_batch"] == 7
    hold_equal(step(loaded), step(model))


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "256"])
def test_sizes_that_cannot_be(size):
    with pytest.raises(ValueError, match="cached_gradient_batch must be a whole number of 1 or"):
        build(cached_gradient_batch=size)


def test_layers_that_want_the_whole_batch_are_refused_by_name():
    features, ids = keras.Input((6,)), keras.Input((), dtype="int32")
    unit = circle_tf.UnitEmbedding(4)(features)
    for layer in (circle_tf.PairwiseCircle(name="odd"), circle_tf.CrossBatchMemory(4, name="odd")):
        model = circle_tf.EmbeddingModel([features, ids], layer((unit, ids)))
        with pytest.raises(ValueError, match="'odd' .*compile.loss="):
            model.compile("sgd", cached_gradient_batch=4)


def test_statistics_exchanged_between_replicas_are_refused():
    with strategies.mirrored().scope(), pytest.raises(ValueError, match="synchronized=False"):
        build([keras.layers.BatchNormalization(synchronized=True)], cached_gradient_batch=4)


def test_losses_of_the_forward_pass_are_refused():
    layer = keras.layers.ActivityRegularization(0.1)
    model = build([layer], cached_gradient_batch=7)
    with pytest.raises(ValueError, match="add_loss, activity regularisation"):
        step(model)
