import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.losses import hyperparameters
from configs import digits
from tests.combinations import quick
from trainers.cli import commands
from trainers.outputs import artifacts
from trainers.training import checkpoints, run_models

LOSSES = [name for name in run_models.LOSSES if name != "circle_head"]  # It takes ids as input.
CLASS_LEVEL = ["class_circle", "circle_head", "cross_entropy", *run_models._CLASS_BASELINES]
IDS = np.repeat(np.arange(4), 3)


def recipe(**loss):
    config = digits.get_config()
    config.loss.margin = config.loss.gamma = None
    config.loss.update(loss)
    return config


def build(config):
    keras.utils.set_random_seed(0)
    return run_models.build(config, image_shape=(8, 8, 1), num_classes=5, steps=20)


def pixels():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 80, (len(IDS), 8, 8, 1)) + 40 * IDS[:, None, None, None]
    return tf.constant(images, tf.float32)


def fit(models, *, epochs):
    data = tf.data.Dataset.from_tensors((pixels(), IDS)).repeat()
    return models.training.fit(data, epochs=epochs, steps_per_epoch=5, shuffle=False, verbose=0)


# Each net takes two seconds to trace.
QUICK = ["circle", "class_circle", "cross_entropy", "proxy_anchor", "triplet_hard"]


@pytest.mark.parametrize("name", quick(LOSSES, among=QUICK))
def test_every_loss_trains_the_embeddings(name):
    models = build(recipe(name=name))
    before = models.embedding(pixels()).numpy()
    np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, rtol=1e-5)
    history = fit(models, epochs=4).history
    assert history["loss"][-1] < history["loss"][0]
    assert abs(models.embedding(pixels()).numpy() - before).max() > 1e-3
    monitors = {"s_p", "s_n", "valid_anchors", "weight_p", "weight_n"}
    assert set(history) == {"loss"} | ({"accuracy"} if name == "cross_entropy" else monitors)


CLASS_LOSSES = ["class_circle", "norm_face", "am_softmax", "arc_face", "proxy_anchor"]


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_classes_may_have_several_weights(name):
    models = build(recipe(name=name, sub_centers=3))
    assert artifacts.class_weights_of(models.training).shape == (5, 3, 32)
    assert models.training.output_shape == (None, 5)


@pytest.mark.parametrize("name", ["class_circle", "norm_face", "am_softmax", "arc_face"])
def test_smoothed_labels_reach_the_loss(name):
    assert build(recipe(name=name, label_smoothing=0.1)).training.loss.label_smoothing == 0.1


def test_smoothed_cross_entropy_is_that_of_keras():
    plain, smoothed = (
        build(recipe(name="cross_entropy", label_smoothing=share)) for share in (0.0, 0.2)
    )
    logits = tf.random.stateless_normal([len(IDS), 5], [0, 1]) * 9
    one_hot, loss = tf.one_hot(IDS, 5), smoothed.training.loss
    expected = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.2)
    assert float(loss(IDS, logits)) == pytest.approx(float(expected(one_hot, logits)), rel=1e-5)
    assert type(plain.training.loss) is keras.losses.SparseCategoricalCrossentropy
    assert (smoothed.margin, smoothed.gamma) == (plain.margin, plain.gamma) == (None, None)


@pytest.mark.parametrize("options", [{}, {"fused_update": True}], ids=["plain", "fused"])
def test_the_head_trains_as_classifier_and_loss_do(options):
    histories, found = [], []
    for name, more in (("class_circle", {}), ("circle_head", options)):
        models = build(recipe(name=name, margin=0.25, gamma=32.0, **more))
        ids_as_input = len(models.training.inputs) > 1
        data = ((pixels(), IDS),) if ids_as_input else (pixels(), IDS)
        data = tf.data.Dataset.from_tensors(data).repeat()
        fitted = models.training.fit(data, epochs=2, steps_per_epoch=5, shuffle=False, verbose=0)
        histories.append(fitted.history["loss"])
        found.append([models.embedding(pixels()), artifacts.class_weights_of(models.training)])
        assert models.margin == 0.25
    np.testing.assert_allclose(*histories, rtol=1e-4)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize("name", quick(["circle", "circle_head", "arc_face"], among=["circle"]))
def test_margin_and_gamma_grow_over_a_share_of_the_updates(name):
    config = recipe(name=name, margin=0.2, margin_start=0.4, gamma=64.0, gamma_start=16.0)
    config.loss.growth, config.gradient_accumulation = 0.5, 2
    models = build(config)  # 20 steps, 10 updates, of which 5 are growth.
    found = [(float(models.margin(step)), float(models.gamma(step))) for step in (0, 3, 5, 9)]
    expected = [(0.4, 16.0), (0.28, 16 * 4**0.6), (0.2, 64.0), (0.2, 64.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert models.final_margin == 0.2
    assert hyperparameters.scheduled_values(models.training) == pytest.approx(
        {"margin": 0.4, "gamma": 16.0}
    )
    if name == "circle":
        fit(models, epochs=2)  # 10 batches, 5 updates.
        assert hyperparameters.scheduled_values(models.training)["gamma"] == 64.0


@pytest.mark.parametrize(
    ("name", "columns"),
    [("circle", 32), ("class_circle", 5), ("keras_circle", 32), ("cross_entropy", 5)],
)
def test_what_the_training_model_ends_in(name, columns):
    models = build(recipe(name=name))
    assert models.training.output_shape == (None, columns)
    assert models.embedding.output_shape == (None, 32)


@pytest.mark.parametrize(
    ("name", "loss"),
    [("circle", circle_tf.CircleLoss), ("class_circle", circle_tf.ClassCircleLoss)],
)
def test_fields_left_out_take_the_class_s_defaults(name, loss):
    found = build(recipe(name=name)).training.loss
    assert type(found) is loss and found.get_config() == loss().get_config()


def test_fields_given_reach_the_loss():
    loss = build(recipe(margin=0.3, gamma=32.0, reduction="mean")).training.loss
    assert (loss.margin, loss.gamma, loss.reduction) == (0.3, 32.0, "mean")


def test_embedding_model_needs_circle_tf_alone(tmp_path):
    models = build(recipe(name="cross_entropy"))
    models.embedding.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels()), models.embedding(pixels()))


@pytest.mark.parametrize("name", ["circle", "cross_entropy"])
def test_mixed_float16_gives_float32_embeddings(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models = build(recipe(name=name))
        assert np.isfinite(fit(models, epochs=1).history["loss"]).all()
    finally:
        keras.config.set_dtype_policy("float32")
    assert models.embedding.output.dtype == models.training.output.dtype == "float32"
    assert isinstance(models.training.optimizer, keras.optimizers.LossScaleOptimizer)


def with_model(**changes):
    config = recipe()
    config.model.update(changes)
    return config


def test_a_memory_and_cached_gradients_train_as_asked_for():
    config = recipe(memory_size=30, memory_start_step=2, margin=0.3)
    config.cached_gradient_batch = 5
    models = build(config)
    memory = models.training.memory
    assert (memory.memory_size, memory.start_step, memory.margin) == (30, 2, 0.3)
    assert models.training.get_compile_config()["cached_gradient_batch"] == 5
    assert np.isfinite(fit(models, epochs=1).history["loss"]).all()
    assert int(memory.rows_seen.numpy()) == 5 * len(IDS)
    assert models.embedding.memory is None


@pytest.mark.parametrize("name", quick(LOSSES, among=["circle"]))
def test_dropout_is_of_training_alone(name):
    config = recipe(name=name)
    plain = build(config)
    config.model.dropout = 0.5
    models = build(config)
    np.testing.assert_array_equal(models.embedding(pixels()), plain.embedding(pixels()))
    one, other = (models.training(pixels(), training=True) for _ in range(2))
    assert np.abs(one - other).max() > 1e-3  # Other masks; the backbone draws nothing.
    one, other = (plain.training(pixels(), training=True) for _ in range(2))
    np.testing.assert_array_equal(one, other)


FEATURES = np.random.default_rng(0).normal(size=(len(IDS), 256)).astype(np.float32)


def head_alone(config):
    """The recipe of what trains on `FEATURES`, which is quick to trace."""
    config.fine_tune.update(cache_features=True, unfreeze_from="1")
    config.augment.update(rotation=0.0, translation=0.0)
    return config


def test_dropout_goes_on_where_it_was(tmp_path):
    config = head_alone(recipe(name="cross_entropy"))
    config.model.dropout = 0.5

    def train(models):
        data = tf.data.Dataset.from_tensors((FEATURES, IDS)).repeat(5)
        models.training.fit(data, shuffle=False, verbose=0)
        return models.training.get_weights()

    whole, rest = build(config), build(config)
    saved = checkpoints.Checkpoints(str(tmp_path), whole.training, keep=1)
    train(whole)
    saved.save(5)
    checkpoints.Checkpoints(str(tmp_path), rest.training, keep=1).restore()
    for one, other in zip(train(whole), train(rest), strict=True):
        np.testing.assert_array_equal(one, other)
    drop = rest.training.get_layer("feature_dropout")
    drop.seed_generator.state.assign([0, 0])
    differ = zip(train(whole), train(rest), strict=True)
    assert any(np.abs(one - other).max() > 1e-4 for one, other in differ)


def test_class_level_loss_beside_the_pair_wise(tmp_path):
    options = {"margin": 0.4, "gamma": 80.0, "class_level_weight": 0.5}
    models = build(head_alone(recipe(**options, memory_size=30)))
    assert models.counts_classes and (models.margin, models.gamma) == (0.4, 80.0)
    assert models.training.output_shape == models.embedding.output_shape == (None, 32)
    head = models.training.get_layer("classes")
    assert (head.margin, head.gamma, head.loss_weight) == (0.25, 64.0, 0.5)
    unit = models.training((tf.constant(FEATURES), tf.constant(IDS)))
    cosines = circle_tf.CosineClassifier(5)
    cosines.build((None, 32))
    cosines.set_weights([artifacts.class_weights_of(models.training)])
    expected = circle_tf.CircleLoss(0.4, 80.0)(IDS, unit)
    expected += 0.5 * circle_tf.ClassCircleLoss(0.25, 64.0)(IDS, cosines(unit))
    found = models.training.evaluate((FEATURES, IDS), IDS, batch_size=12, verbose=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    checkpoints.Checkpoints(str(tmp_path), models.training, keep=1).save(1)
    data = tf.data.Dataset.from_tensors(((FEATURES, IDS), IDS)).repeat(10)
    history = models.training.fit(data, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "s_p", "s_n", "valid_anchors", "weight_p", "weight_n"}
    assert history["loss"][0] < found[0]
    assert np.abs(artifacts.class_weights_of(models.training) - cosines.get_weights()[0]).max() > 0
    assert int(models.training.memory.rows_seen.numpy()) == 10 * len(IDS)


def test_margin_and_gamma_of_the_class_level_loss():
    options = {"class_level_margin": 0.1, "class_level_gamma": 32.0}
    head = build(recipe(class_level_weight=1.0, **options)).training.get_layer("classes")
    assert (head.margin, head.gamma) == (0.1, 32.0)


def with_class_level(size):
    config = cached(size)
    config.loss.class_level_weight = 0.5
    return config


def accumulating(batches):
    config = recipe()
    config.gradient_accumulation = batches
    return config


def one_of_a_class(loss):
    config = recipe(name=loss)
    config.batch.examples_per_class = 1
    return config


def cached(size):
    config = recipe()
    config.cached_gradient_batch = size
    return config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (recipe(memory_size=-1), "memory_size must be a whole number of 1 or more; found -1"),
        (recipe(memory_size=9, memory_start_step=-1), "start_step must be .*found -1"),
        (recipe(memory_start_step=9), "wants a loss.memory_size above 0"),
        (recipe(name="class_circle", sample_rate=0.5), "sample_rate is for the loss circle_head"),
        (recipe(name="circle", shards="replicas"), "shards is for the loss circle_head; found 'ci"),
        (recipe(name="circle_head", shards="devices"), "shards must be None or .replicas."),
        (recipe(name="circle_head", sample_rate=1.5), "sample_rate must be a number above 0"),
        (recipe(name="circle_head", product_dtype="half"), "product_dtype must be None or"),
        (recipe(name="circle_head", max_bytes=0), "max_bytes must be .*found 0"),
        (recipe(name="class_circle", fused_update=True), "fused_update is for the loss circle_he"),
        (recipe(name="circle_head", fused_update=True, sample_rate=0.5), "leave out sample_rate"),
        (recipe(name="class_circle", memory_size=9), "for the loss circle; found 'class_circle'"),
        (recipe(name="circle", sub_centers=2), "for the losses class_circle, .*; found 'circle'.$"),
        (recipe(name="circle_head", sub_centers=2), "'circle_head'. Use class_circle, the same"),
        (recipe(name="class_circle", sub_centers=0), "sub_centers must be .*found 0"),
        (
            recipe(label_smoothing=0.1),
            "label_smoothing is for the losses .*cross_entropy; found 'c",
        ),
        (recipe(name="circle_head", label_smoothing=0.1), "'circle_head'. Use class_circle, the"),
        (recipe(name="proxy_anchor", label_smoothing=0.1), "found 'proxy_anchor'.$"),
        (recipe(name="class_circle", label_smoothing=1.0), "below 1; found 1.0"),
        (recipe(name="cross_entropy", label_smoothing=0.1, gamma=1.0), "has no margin, gamma or"),
        (recipe(class_level_gamma=9.0), "class_level_gamma wants a loss.class_level_weight above"),
        (recipe(name="arc_face", class_level_weight=1.0), "for the loss circle; found 'arc_face'"),
        (recipe(class_level_weight=1.0, class_level_margin=3.0), "margin must be .*found 3"),
        (with_class_level(5), "cached_gradient_batch: the layer 'classes' .CircleHead. wants"),
        (
            one_of_a_class("circle"),
            "examples_per_class must be 2 or more with the loss circle",
        ),
        (one_of_a_class("n_pairs"), "with the loss n_pairs.*1 is for the losses class_circle, "),
        (cached(-2), "cached_gradient_batch must be .*found -2"),
        (accumulating(0), "gradient_accumulation must be .*found 0"),
        (
            recipe(name="circel"),
            "arc_face, proxy_anchor; found 'circel'",
        ),
        (recipe(name="n_pairs", margin=0.1), "loss.margin is not for n_pairs: leave it None"),
        (recipe(gamma=-1.0), "found -1"),
        (recipe(gamma_start=8.0), "loss.gamma_start wants loss.gamma, where it is to end"),
        (recipe(name="n_pairs", margin=0.1, margin_start=0.2), "loss.margin is not for n_pairs"),
        (
            recipe(name="keras_circle", gamma=8.0, gamma_start=4.0),
            "loss.gamma_start is not for keras_circle",
        ),
        (recipe(reduction="median"), "median"),
        (recipe(name="keras_circle", reduction="mean"), "not for keras_circle"),
        (recipe(name="cross_entropy", gamma=1.0), "has no margin, gamma or reduction"),
        (with_model(backbone="conv5"), "Did you mean 'conv4'"),
        (with_model(embedding_dim=0), "1 or more; found 0"),
        (with_model(dropout=1.5), "rate=1.5"),
        (with_model(pooling="mean"), "found 'mean'"),
        (with_model(backbone="no_such_module:net"), "no_such_module', which cannot be imported"),
        (with_model(weights="imagenet"), "are for nets of keras.applications; found 'conv4'"),
    ],
)
def test_bad_values(config, message):
    with pytest.raises(commands.ConfigError, match=message):
        build(config)


def with_optimizer(loss, **values):
    config = recipe(name=loss)
    config.optimizer.update(values)
    return config


@pytest.mark.parametrize("loss", CLASS_LEVEL)
def test_class_weights_have_a_rate_of_their_own(loss):
    training = build(with_optimizer(loss, class_rate_factor=10.0)).training
    rates = {key: rate.factor for key, rate in training.optimizer._rates.by_key.items()}
    classes = training.get_layer("classes").trainable_variables
    assert rates == {training.optimizer._var_key(variable): 10 for variable in classes} != {}


def test_class_weights_have_their_rate_beside_a_backbone_that_has_its_own():
    config = with_optimizer("class_circle", class_rate_factor=4.0, ema_momentum=0.9)
    config.fine_tune.learning_rate_factor = 0.5
    optimizer = build(config).training.optimizer
    assert {rate.factor for rate in optimizer._rates.by_key.values()} == {0.5, 4.0}
    assert optimizer.ema_momentum == 0.9


@pytest.mark.parametrize("name", ["circle", "triplet_hard"])
def test_a_rate_of_class_weights_wants_class_weights(name):
    with pytest.raises(commands.ConfigError, match=f"with class weights .*found the loss '{name}'"):
        build(with_optimizer(name, class_rate_factor=2.0))


def test_a_run_begins_with_the_net_of_another(tmp_path):
    path = str(tmp_path / "model.keras")
    first = build(recipe(name="class_circle"))
    fit(first, epochs=1)
    first.embedding.save(path)
    config = recipe(name="circle")
    config.model.weights = path
    again = build(config)
    pairs = zip(first.embedding.weights, again.embedding.weights, strict=True)
    differ = {one.path for one, other in pairs if not np.array_equal(one, other)}
    assert "embedding/kernel" in differ and all(name.startswith("embedding/") for name in differ)
    config.model.backbone = "iresnet18"
    with pytest.raises(commands.ConfigError, match="holds another net than iresnet18"):
        build(config)
    config.model.backbone, config.model.pooling = "conv4", "generalized_mean"
    config.model.partial_weights = True
    with pytest.warns(UserWarning, match="1 of 9 layers of conv4 keep their own weights"):
        build(config)
