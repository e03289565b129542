"""Training over replicas of one machine equals training on one device, and says what it refuses."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from benchmarks import strategy_cases
from circle_tf import compat
from circle_tf.training import keras_private
from tests import one_device, stacks, strategies
from tests.combinations import quick
from tests.small_models import mirrored, rows_and_ids, small, unit_layers

pytestmark = stacks.needs_own_steps


@pytest.fixture(scope="session")
def on_one_device(tmp_path_factory):
    return functools.partial(one_device.results, base=tmp_path_factory.getbasetemp())


# Two to fifteen seconds each.
QUICK = [
    "CircleLoss",
    "CircleHead over replicas, mixed_float16",
    "a replica without rows, class",
    "averaged weights, CircleHead over replicas, mixed_float16",
    "averaged weights, gradient_accumulation=2",
    "global_clipnorm",
    "mixed_float16, inf on one replica",
    "plain Keras loss",
    "sample_weight",
]


# The other XLA case runs in models_multiworker_test.py.
@pytest.mark.parametrize(
    "name", quick([n for n in strategy_cases.CASES if n != "mixed_float16, XLA"], among=QUICK)
)
def test_two_replicas_equal_one_device(name, tmp_path_factory):
    found = strategy_cases.run(strategy_cases.CASES[name], mirrored(2))
    assert one_device.differences(name, found, tmp_path_factory.getbasetemp()) == {}


def test_the_cases_do_what_their_names_say(on_one_device):
    scaled = on_one_device("mixed_float16")
    assert scaled["loss scale"] == [2.0 ** (6 + step // 3) for step in range(1, 13)]
    assert scaled["iterations"] == list(range(1, 13))
    # The second of each epoch's three batches is skipped and halves the scale.
    skipped = on_one_device("mixed_float16, inf on one replica")
    assert skipped["iterations"] == [1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8]
    assert skipped["loss scale"][1] == skipped["loss scale"][0] / 2
    assert on_one_device("gradient_accumulation=2")["iterations"][-1] == 6
    plain = on_one_device("CircleLoss")["weights"]
    for name in ("clipnorm", "global_clipnorm", "clipvalue", "sample_weight"):
        assert np.abs(np.subtract(on_one_device(name)["weights"], plain)).max() > 1e-3, name


def per_replica(strategy, variable):
    return [v.numpy() for v in strategy.experimental_local_results(variable.value)]


@pytest.mark.parametrize("jit", [False, True])
def test_moving_statistics_are_the_mean_over_replicas_weighted_by_rows(jit):
    strategy = mirrored(2)
    batch_norm = []

    def layers():
        batch_norm.append(keras.layers.BatchNormalization(momentum=0.9))
        return [*batch_norm, circle_tf.UnitEmbedding(4)]

    model = small(strategy, layers, jit_compile=jit)
    rows, ids = rows_and_ids(17)
    # Batches of 16: 8 + 8, then 1 + 0: the second replica has statistics of nothing.
    model.fit(rows, ids, batch_size=16, shuffle=False, verbose=0)
    mean, variance = np.zeros(6), np.ones(6)
    for parts in ([rows[:8], rows[8:16]], [rows[16:]]):
        weights = [len(part) / sum(map(len, parts)) for part in parts]
        batch = sum(w * part.mean(0) for w, part in zip(weights, parts, strict=True))
        spread = sum(w * part.var(0) for w, part in zip(weights, parts, strict=True))
        mean, variance = 0.9 * mean + 0.1 * batch, 0.9 * variance + 0.1 * spread
    for replica in (0, 1):
        found = per_replica(strategy, batch_norm[0].moving_mean)[replica]
        np.testing.assert_allclose(found, mean, atol=1e-6)
        found = per_replica(strategy, batch_norm[0].moving_variance)[replica]
        np.testing.assert_allclose(found, variance, atol=1e-6)


def test_synchronised_batch_norm_equals_one_device_and_is_named_where_xla_is_asked_for():
    def layers():
        sync = keras.layers.BatchNormalization(synchronized=True, name="together")
        return [keras.layers.Dense(5), sync, circle_tf.UnitEmbedding(4)]

    rows, ids = rows_and_ids(32)
    weights = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = small(strategy, layers)
        model.fit(rows, ids, batch_size=16, epochs=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    with pytest.raises(ValueError, match="together.*synchronized=False or jit_compile=False"):
        small(mirrored(2), layers, jit_compile=True)


class KeepsMask(keras.layers.Layer):
    """Shows what dropout let through, per replica."""

    def build(self, shape):
        self.seen = tf.Variable(
            tf.zeros([8, 6]),
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def call(self, inputs):
        self.seen.assign(tf.ensure_shape(tf.cast(inputs > 0, tf.float32), [8, 6]))
        return inputs


def test_dropout_masks_differ_between_replicas_and_steps_and_seeds_stay_the_same():
    strategy, made = mirrored(2), []

    def layers():
        made.extend([keras.layers.Dropout(0.5, seed=3), KeepsMask()])
        return [*made, circle_tf.UnitEmbedding(4)]

    model = small(strategy, layers)
    dropout, keeps = made
    rows, ids = np.ones((16, 6), np.float32), np.arange(16) % 4
    masks = []
    for _ in range(2):
        model.fit(rows, ids, batch_size=16, shuffle=False, verbose=0)
        masks += [v.numpy() for v in strategy.experimental_local_results(keeps.seen)]
    assert len({mask.tobytes() for mask in masks}) == 4
    assert all(0.2 < mask.mean() < 0.8 for mask in masks)
    states = per_replica(strategy, dropout.seed_generator.state)
    assert states[0].tolist() == states[1].tolist() == [3, 2]


def test_one_trace_per_function_over_epochs_with_an_uneven_last_batch():
    traces = []

    class Counts(keras.layers.Layer):
        def call(self, inputs):
            traces.append(tf.distribute.get_replica_context() is not None)
            return inputs

    model = small(mirrored(2), lambda: [Counts(), circle_tf.UnitEmbedding(4)])
    rows, ids = rows_and_ids(43)
    model.fit(rows, ids, batch_size=16, epochs=3, shuffle=False, verbose=0)
    assert traces.count(True) == 2  # Once for each replica.


def test_layers_xla_cannot_compile_are_found_before_the_first_step_and_named():
    def hashed():
        return [keras.layers.Hashing(8, name="buckets"), keras.layers.Embedding(8, 4)]

    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        with pytest.raises(ValueError, match="buckets: Hashing .*jit_compile=False"):
            small(strategy, hashed, jit_compile=True)
    assert small(mirrored(2), hashed, jit_compile="auto") is not None


class Spells(keras.layers.Layer):
    def call(self, inputs):
        return tf.strings.to_number(tf.strings.as_string(inputs))


@pytest.mark.parametrize("count", [1, 2])
def test_string_operations_of_own_layers_are_named_when_traced(count):
    strategy = mirrored(2) if count == 2 else tf.distribute.get_strategy()
    layers = lambda: [Spells(name="spells"), circle_tf.UnitEmbedding(4)]  # noqa: E731
    model = small(strategy, layers, jit_compile=True)
    before = model.get_weights()
    with pytest.raises(ValueError, match="spells.*AsString.*jit_compile=False"):
        model.fit(*rows_and_ids(), batch_size=16, verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_pair_layers_see_the_global_batch_and_are_named_where_xla_is_asked_for():
    def make(strategy, **options):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            features, ids = keras.Input((6,)), keras.Input((), dtype="int32")
            unit = circle_tf.UnitEmbedding(4)(features)
            pair = circle_tf.PairwiseCircle(gamma=8.0, as_model_loss=True, name="pair")
            head = circle_tf.CircleHead(4, gamma=8.0, as_model_loss=True, name="head")
            outputs = [pair((unit, ids)), head((unit, ids))]
            model = circle_tf.EmbeddingModel([features, ids], outputs)
            model.compile(keras.optimizers.SGD(0.02), **options)
        return model

    rows, ids = rows_and_ids(21)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = make(strategy)
        weighted = ((rows, ids), ids, np.linspace(0, 2, 21, dtype=np.float32))
        dataset = tf.data.Dataset.from_tensor_slices(weighted).batch(16)
        losses = model.fit(dataset, epochs=4, shuffle=False, verbose=0).history["loss"]
        results.append([*model.get_weights(), np.array(losses)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    with pytest.raises(ValueError, match="pair: PairwiseCircle gathers.*head: CircleHead"):
        make(mirrored(2), jit_compile=True)


def beside(strategy, **options):
    """Pair-wise loss of the output, and class-level loss, weighed, of a layer."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((6,)), keras.Input((), dtype="int32")
        unit = circle_tf.UnitEmbedding(4)(features)
        head = circle_tf.CircleHead(4, gamma=8.0, as_model_loss=True, loss_weight=0.5, name="head")
        unit = keras.layers.Identity(dtype="float32")([unit, head((unit, ids))])[0]
        model = circle_tf.EmbeddingModel([features, ids], unit)
        optimizer = keras.optimizers.SGD(0.02)
        model.compile(optimizer, circle_tf.CircleLoss(gamma=8.0, reduction="mean"), **options)
    return model


@pytest.mark.parametrize("accumulated", quick([1, 2], among=[1]))
def test_a_layer_s_loss_beside_that_of_compile(accumulated):
    rows, ids = rows_and_ids(21)
    weights = np.linspace(0, 2, 21, dtype=np.float32)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = beside(strategy, gradient_accumulation=accumulated)
        before = [np.array(weight) for weight in model.get_weights()]
        dataset = tf.data.Dataset.from_tensor_slices(((rows, ids), ids, weights)).batch(16)
        losses = model.fit(dataset, epochs=4, shuffle=False, verbose=0).history["loss"]
        results.append([*model.get_weights(), np.array(losses)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    # The first loss is by hand what both losses of the first weights are.
    kernel, bias, classes = before
    unit = circle_tf.UnitEmbedding(4)
    unit.build((None, 6))
    unit.set_weights([kernel, bias])
    classifier = circle_tf.CosineClassifier(4)
    classifier.build((None, 4))
    classifier.set_weights([classes])
    pairs = circle_tf.CircleLoss(gamma=8.0, reduction="mean")(ids, unit(rows), weights)
    by_class = circle_tf.ClassCircleLoss(gamma=8.0)(ids, classifier(unit(rows)), weights)
    model = beside(tf.distribute.get_strategy())
    found = model.evaluate((rows, ids), ids, sample_weight=weights, batch_size=21, verbose=0)
    np.testing.assert_allclose(found, pairs + 0.5 * by_class, rtol=1e-5)
    with pytest.raises(ValueError, match="'head' .CircleHead. wants the whole batch"):
        beside(tf.distribute.get_strategy(), cached_gradient_batch=5)


@pytest.mark.parametrize("reduction", ["mean_with_sample_weight", "sum"])
def test_plain_losses_of_every_reduction_with_masks_and_weights(reduction):
    """Sequences of 3, masked per step, two outputs: divisors and trackers are global."""

    def make(strategy):
        with strategy.scope():
            keras.utils.set_random_seed(0)
            features = keras.Input((3, 2))
            hidden = keras.layers.Masking()(features)
            outputs = [keras.layers.Dense(1, name="a")(hidden), keras.layers.Dense(1)(hidden)]
            model = circle_tf.EmbeddingModel(features, outputs)
            losses = [
                keras.losses.MeanSquaredError(reduction=reduction),
                keras.losses.MeanAbsoluteError(),
            ]
            model.compile(keras.optimizers.SGD(0.05), losses, loss_weights=[0.5, 2.0])
        return model

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(21, 3, 2)).astype(np.float32)
    rows[5:14, 1:] = 0  # Masked, and not evenly over the replicas.
    targets = [rng.normal(size=(21, 3, 1)).astype(np.float32) for _ in range(2)]
    weights = rng.uniform(0.5, 2, size=(21, 1)).astype(np.float32)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = make(strategy)
        options = {"batch_size": 16, "verbose": 0, "sample_weight": [weights, weights]}
        history = model.fit(rows, targets, epochs=2, shuffle=False, **options).history
        results.append([*model.get_weights(), *(np.array(history[name]) for name in history)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


class Counts(keras.layers.Layer):
    def __init__(self, of):
        super().__init__(name="counts")
        self.of = of
        self.total = self.add_weight(
            name="total", dtype="int64", initializer="zeros", trainable=False
        )

    def call(self, inputs):
        self.total.assign_add(self.of(inputs))
        return inputs


def test_whole_numbers_in_layers_are_alike_on_replicas_or_refused_by_name():
    rows, ids = rows_and_ids(11)
    steps = small(mirrored(2), lambda: [Counts(lambda _: 1), *unit_layers()])
    steps.fit(rows, ids, batch_size=16, verbose=0)
    assert [int(steps.get_layer("counts").total.numpy())] == [1]
    count = lambda inputs: tf.shape(inputs, out_type=tf.int64)[0]  # noqa: E731
    seen = small(mirrored(2), lambda: [Counts(count), *unit_layers()])
    with pytest.raises(tf.errors.InvalidArgumentError, match="counts/total.*each replica"):
        seen.fit(rows, ids, batch_size=16, verbose=0)


def test_weights_that_layers_assign_to_are_refused_before_the_first_step():
    def layers():
        return [keras.layers.SpectralNormalization(keras.layers.Dense(4)), *unit_layers()]

    model = small(mirrored(2), layers)
    before = model.get_weights()
    with pytest.raises(NotImplementedError, match="kernel', which is trained.*one device"):
        model.fit(*rows_and_ids(), batch_size=16, verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_regularisation_counts_once():
    def layers():
        return [circle_tf.UnitEmbedding(4, kernel_regularizer=keras.regularizers.L2(0.1))]

    rows, ids = rows_and_ids()
    weights = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = small(strategy, layers, jit_compile=strategy is mirrored(2))
        history = model.fit(rows, ids, batch_size=16, epochs=4, shuffle=False, verbose=0).history
        weights.append([*model.get_weights(), np.array(history["loss"])])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.skipif(
    compat.KERAS < (3, 15),
    reason="tf.train.Checkpoint loses the momentum of Keras 3.10, of any model",
)
@pytest.mark.parametrize("count", [1, 2])
def test_averages_take_the_place_of_weights_and_go_on_from_a_checkpoint(count, tmp_path):
    def averaged(strategy):
        with strategy.scope():
            options = {"ema_momentum": 0.5, "ema_overwrite_frequency": 2}
            optimizer = keras.optimizers.SGD(0.1, momentum=0.9, use_ema=True, **options)
        return small(strategy, lambda: [circle_tf.UnitEmbedding(4)], optimizer=optimizer)

    rows, ids = rows_and_ids()
    expected = averaged(tf.distribute.get_strategy())
    losses = [expected.train_on_batch(rows, ids) for _ in range(5)]
    first, second = (averaged(mirrored(count)) for _ in range(2))
    found = [first.train_on_batch(rows, ids) for _ in range(3)]
    path = tf.train.Checkpoint(model=first, optimizer=first.optimizer).save(tmp_path / "state")
    second.train_on_batch(rows, ids)
    restored = tf.train.Checkpoint(model=second, optimizer=second.optimizer).restore(path)
    restored.assert_consumed()
    found += [second.train_on_batch(rows, ids) for _ in range(2)]
    np.testing.assert_allclose(found, losses, rtol=1e-5)
    for model in (expected, second):
        model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(second.get_weights()[0], expected.get_weights()[0], atol=1e-5)


def test_single_batches_predictions_and_saving(tmp_path):
    rows, ids = rows_and_ids(11)
    results = []
    for strategy in (tf.distribute.get_strategy(), mirrored(2)):
        model = small(strategy, lambda: [circle_tf.UnitEmbedding(4)], gradient_accumulation=2)
        losses = [model.train_on_batch(rows, ids) for _ in range(3)]
        losses.append(model.test_on_batch(rows, ids))
        results.append([*model.get_weights(), np.array(losses), model.predict(rows, verbose=0)])
        assert [v.numpy().max() > 0 for v in model.accumulator.variables[:1]] == [True]
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_compile_config()["gradient_accumulation"] == 2
    np.testing.assert_allclose(loaded.predict(rows, verbose=0), results[1][-1], atol=1e-6)


def test_what_was_made_outside_the_strategy_is_refused():
    strategy = mirrored(2)
    features = keras.Input((6,))
    outside = circle_tf.EmbeddingModel(features, keras.layers.Dense(1)(features))
    with strategy.scope(), pytest.raises(ValueError, match="model was made outside"):
        outside.compile("sgd", "mse")
    with pytest.raises(ValueError, match="optimizer was made outside"):
        small(strategy, lambda: [keras.layers.Dense(1)], optimizer=keras.optimizers.SGD())
    dropout = keras.layers.Dropout(0.5)
    with pytest.raises(ValueError, match="model was made outside"):
        small(strategy, lambda: [dropout])
    metric = circle_tf.metrics.ValidAnchors(name="stranger")
    with strategy.scope():
        model = small(strategy, lambda: [circle_tf.UnitEmbedding(4)], metrics=[metric])
    with pytest.raises(ValueError, match="metric was made outside .*stranger"):
        model.fit(*rows_and_ids(), batch_size=16, verbose=0)


def test_keras_own_accumulation_is_refused_with_the_remedy():
    strategy = mirrored(2)
    with strategy.scope():
        optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="compile.gradient_accumulation"):
        small(strategy, lambda: [circle_tf.UnitEmbedding(4)], optimizer=optimizer)
    with pytest.raises(ValueError, match="whole number of 1 or more; found 0"):
        small(strategy, lambda: [circle_tf.UnitEmbedding(4)], gradient_accumulation=0)


@pytest.mark.skipif(not hasattr(keras.optimizers, "OptimizerMap"), reason="this Keras has neither")
@pytest.mark.parametrize("kind", ["MultiOptimizer", "ScheduleFreeAdamW"])
def test_optimizers_whose_steps_would_be_others_are_refused_by_name(kind):
    strategy = mirrored(2)
    with strategy.scope():
        sgd = keras.optimizers.OptimizerMap(keras.optimizers.SGD())
        optimizer = (
            keras.optimizers.MultiOptimizer(sgd)
            if kind == "MultiOptimizer"
            else keras.optimizers.ScheduleFreeAdamW()
        )
    with pytest.raises(NotImplementedError, match=f"{kind} over several replicas .* one device"):
        small(strategy, lambda: [circle_tf.UnitEmbedding(4)], optimizer=optimizer)


def test_strategies_without_a_global_batch_are_refused_with_the_reason():
    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"])
    with pytest.raises(NotImplementedError, match="CentralStorageStrategy: .*wrong numbers"):
        small(strategy, lambda: [circle_tf.UnitEmbedding(4)])


def test_compile_names_the_version_where_keras_behaves_otherwise(monkeypatch):
    monkeypatch.setattr(keras.layers.Dropout, "call", lambda self, inputs, training=False: inputs)
    keras_private.check.cache_clear()
    tested = f"tested with Keras {keras_private.TESTED_KERAS}; Keras {keras.__version__} behaves"
    with pytest.raises(RuntimeError, match=tested):
        small(strategies.mirrored(), lambda: [circle_tf.UnitEmbedding(4)])


def test_one_device_uses_the_steps_of_keras(monkeypatch):
    model = small(tf.distribute.get_strategy(), lambda: [circle_tf.UnitEmbedding(4)])
    monkeypatch.setattr(circle_tf.training.model, "_steps", lambda: pytest.fail("own steps"))
    model.fit(*rows_and_ids(), batch_size=16, verbose=0)
    model.evaluate(*rows_and_ids(), verbose=0)
