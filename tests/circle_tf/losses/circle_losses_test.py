"""The Keras losses: labels, reductions, precision, fit, serialisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.losses import circle_losses
from tests import reference, stacks

MODES = ["eager", "graph", "xla"]


def batch(seed=0, *, size=24, dim=16, classes=6, dtype=np.float64):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, dim)).astype(dtype) * rng.uniform(0.1, 9, (size, 1)).astype(dtype)
    return rows, rng.integers(0, classes, size)


def run(loss, labels, predictions, *, mode="eager", sample_weight=None):
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(labels, x, sample_weight)
        return value, tape.gradient(value, x)

    if mode != "eager":
        compute = tf.function(compute, jit_compile=mode == "xla")
    return [np.asarray(t) for t in compute(tf.constant(predictions))]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_pairwise_value_and_gradient_are_the_papers(mode, dtype, tolerance):
    rows, ids = batch(dtype=dtype)
    options = {"margin": 0.4, "gamma": 80.0}
    value, gradient = run(circle_tf.CircleLoss(**options), ids, rows, mode=mode)
    expected, _, valid = reference.pairwise(rows, ids, **options)
    count = valid.sum()
    upstream = np.full(len(ids), 1 / count)
    expected_gradient = reference.pairwise_embedding_gradient(rows, ids, upstream, **options)
    # In float32 the similarities themselves are rounded to 6e-8, which gamma scales.
    scale = 1 if dtype == np.float64 else 10
    assert abs(value - expected.sum() / count) <= tolerance * value
    error = np.abs(gradient - expected_gradient).max() / np.abs(expected_gradient).max()
    assert error <= tolerance * scale


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_class_level_value_and_gradient_are_the_papers(mode, dtype, tolerance):
    rng = np.random.default_rng(1)
    cosines, ids = rng.uniform(-1, 1, (8, 30)).astype(dtype), rng.integers(0, 30, 8)
    value, gradient = run(circle_tf.ClassCircleLoss(), ids, cosines, mode=mode)
    expected, expected_gradient = reference.class_level(cosines, ids, margin=0.25, gamma=256.0)
    assert abs(value - expected.mean()) <= tolerance * value
    error = np.abs(gradient - expected_gradient / 8).max() / np.abs(expected_gradient / 8).max()
    assert error <= tolerance


def test_class_level_equals_cross_entropy_of_the_scaled_logits():
    rng = np.random.default_rng(2)
    cosines, ids = rng.uniform(-1, 1, (8, 30)), rng.integers(0, 30, 8)
    own = np.eye(30, dtype=bool)[ids]
    weight_p, weight_n = np.maximum(0, 1.25 - cosines), np.maximum(0, cosines + 0.25)
    logits = np.where(own, weight_p * (cosines - 0.75), weight_n * (cosines - 0.25)) * 256
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=ids, logits=logits)
    found = circle_tf.ClassCircleLoss()(ids, cosines)
    np.testing.assert_allclose(found, np.mean(expected), rtol=1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_smoothed_labels_are_those_of_the_loop(mode, dtype, tolerance):
    rng = np.random.default_rng(1)
    cosines, ids = rng.uniform(-1, 1, (8, 30)).astype(dtype), rng.integers(0, 30, 8)
    options = {"margin": 0.25, "gamma": 64.0, "label_smoothing": 0.1}
    value, gradient = run(circle_tf.ClassCircleLoss(**options), ids, cosines, mode=mode)
    expected, expected_gradient = reference.smoothed_class_level(cosines, ids, **options)
    assert abs(value - expected.mean()) <= tolerance * value
    error = np.abs(gradient - expected_gradient / 8).max() / np.abs(expected_gradient / 8).max()
    assert error <= tolerance
    one_hot = circle_tf.ClassCircleLoss(**options, one_hot=True)(np.eye(30)[ids], cosines)
    np.testing.assert_allclose(one_hot, value, rtol=tolerance)


def test_labels_that_are_not_smoothed_give_the_same_to_the_bit():
    rng = np.random.default_rng(1)
    cosines, ids = rng.uniform(-1, 1, (8, 30)).astype(np.float32), rng.integers(0, 30, 8)
    plain = run(circle_tf.ClassCircleLoss(), ids, cosines)
    off = run(circle_tf.ClassCircleLoss(label_smoothing=0), ids, cosines)
    little = run(circle_tf.ClassCircleLoss(label_smoothing=1e-3), ids, cosines)
    for one, other, third in zip(plain, off, little, strict=True):
        np.testing.assert_array_equal(one, other)
        assert (one != third).any()


def test_smoothed_labels_are_best_at_a_gap_of_the_logits():
    own = np.linspace(0.75, 1, 2001)  # The other logits are 0.
    cosines = np.stack([own, *[np.full(2001, 0.25)] * 3], axis=1)
    loss = circle_tf.ClassCircleLoss(reduction="none", label_smoothing=0.1)
    best = own[np.argmin(loss(np.zeros(2001, int), cosines))]
    assert 256 * (1.25 - best) * (best - 0.75) == pytest.approx(np.log(1 + 4 * 0.9 / 0.1), abs=0.05)


@pytest.mark.parametrize("smoothing", [1, -0.1, float("nan")])
def test_a_part_of_the_label_is_left(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be 0 or more, below 1; found"):
        circle_tf.ClassCircleLoss(label_smoothing=smoothing)


def test_relabelling_changes_nothing():
    rows, ids = batch(3)
    relabelled = np.array([70, -3, 2**40, 5, 6, 7])[ids]
    loss = circle_tf.CircleLoss()
    assert float(loss(ids, rows)) == float(loss(relabelled, rows))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [2**24, 2**31, 2**53, 2**62])
def test_neighbouring_ids_are_two_classes(first, mode):
    rows, _ = batch(4, size=4)
    ids = np.array([first, first, first + 1, first + 1])
    value, _ = run(circle_tf.CircleLoss(), ids, rows, mode=mode)
    expected, _ = run(circle_tf.CircleLoss(), np.array([0, 0, 1, 1]), rows)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert value > 0


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_fit_keeps_wide_ids_exact(shape):
    model = keras.Sequential([keras.Input((5,)), circle_tf.UnitEmbedding(4)])
    model.compile("sgd", loss=circle_tf.CircleLoss(), jit_compile=False)
    rows = np.random.default_rng(5).normal(size=(4, 5)).astype(np.float32)
    ids = np.array([2**24, 2**24, 2**24 + 1, 2**24 + 1]).reshape(shape)
    before = float(circle_tf.CircleLoss()(ids, model(rows)))
    history = model.fit(rows, ids, batch_size=4, verbose=0).history
    assert before > 0
    np.testing.assert_allclose(history["loss"], [before], rtol=1e-5)


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [
        ("mean_valid", lambda losses, valid: losses.sum() / valid.sum()),
        ("mean", lambda losses, valid: losses.mean()),
        ("sum", lambda losses, valid: losses.sum()),
        ("none", lambda losses, valid: losses),
        ("mean_nonzero", lambda losses, valid: losses.sum() / (losses > 0).sum()),
    ],
)
def test_reductions(reduction, expected):
    rows, ids = batch(6, classes=20)
    values, _, valid = reference.pairwise(rows, ids, margin=0.4, gamma=80.0)
    assert 0 < valid.sum() < len(valid)
    found = circle_tf.CircleLoss(reduction=reduction)(ids, rows)
    np.testing.assert_allclose(found, expected(values, valid), rtol=1e-6)


def test_sample_weight_scales_the_anchors_of_fit():
    rows, ids = batch(7, size=8, classes=2, dtype=np.float32)
    weights = np.arange(8, dtype=np.float32)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Identity()])
    model.compile("sgd", loss=circle_tf.CircleLoss(reduction="mean"), jit_compile=False)
    found = model.evaluate(rows, ids, batch_size=8, sample_weight=weights, verbose=0)
    values = circle_tf.CircleLoss(reduction="none")(ids, rows).numpy()
    np.testing.assert_allclose(found, (values * weights).mean(), rtol=1e-5)


@stacks.needs_keras_circle
def test_keras_parity_without_detached_weights():
    rows, ids = batch(8, dtype=np.float32)
    theirs = run(keras.losses.Circle(gamma=80.0, margin=0.4), ids, reference.normalize(rows))
    ours = circle_tf.CircleLoss(reduction="mean_nonzero", detach_weights=False)
    found = run(ours, ids, reference.normalize(rows))
    unit = reference.normalize(rows)
    np.testing.assert_allclose(found[0], theirs[0], rtol=1e-5)
    # Keras does not normalise: take the tangential part, which is what a normalised model sees.
    tangent = theirs[1] - unit * (unit * theirs[1]).sum(1, keepdims=True)
    np.testing.assert_allclose(found[1], tangent, atol=1e-4 * np.abs(tangent).max())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [1e25, 1e-25])
def test_extreme_norms_give_the_loss_of_the_directions(scale, mode):
    rows, ids = batch(9, dtype=np.float32)
    value, gradient = run(circle_tf.CircleLoss(), ids, (rows * scale).astype(np.float32), mode=mode)
    expected, _ = run(circle_tf.CircleLoss(), ids, rows)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_zero_row_has_zero_gradient_and_harms_no_other(mode):
    rows, ids = batch(10, dtype=np.float32)
    rows[3] = 0
    value, gradient = run(circle_tf.CircleLoss(), ids, rows, mode=mode)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (gradient[3] == 0).all() and (np.abs(np.delete(gradient, 3, 0)).max(1) > 0).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("alone", [False, True])
def test_a_bad_row_makes_the_loss_nan_even_without_a_valid_anchor(bad, alone, mode):
    rows, ids = batch(11, dtype=np.float32)
    rows[3, 2] = bad
    ids = np.arange(len(ids)) if alone else ids
    value, _ = run(circle_tf.CircleLoss(), ids, rows, mode=mode)
    assert np.isnan(value)


@pytest.mark.parametrize("graph", [False, True])
def test_check_finite_names_the_row(graph):
    rows, ids = batch(12, dtype=np.float32)
    rows[17, 2] = np.nan
    loss = circle_tf.CircleLoss(check_finite=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)NaN or inf in y_pred.*17"):
        run(loss, ids, rows, mode="graph" if graph else "eager")


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", MODES)
def test_loss_is_float32_and_near_float32_under_every_policy(policy, mode):
    keras.utils.set_random_seed(0)
    rows, ids = batch(13, dtype=np.float32)
    layer = circle_tf.UnitEmbedding(8, dtype=policy)
    exact = circle_tf.UnitEmbedding(8)
    layer.build(rows.shape), exact.build(rows.shape)
    exact.set_weights(layer.get_weights())
    loss = circle_tf.CircleLoss()
    value, gradient = run(lambda y, x, w: loss(y, layer(x), w), ids, rows, mode=mode)
    expected, expected_gradient = run(lambda y, x, w: loss(y, exact(x), w), ids, rows)
    assert layer(rows).dtype == tf.float32 and value.dtype == np.float32
    np.testing.assert_allclose(value, expected, rtol=0.03)
    difference = np.linalg.norm(gradient - expected_gradient) / np.linalg.norm(expected_gradient)
    assert difference < (1e-4 if policy == "float32" else 0.2)


@pytest.mark.parametrize("loss", [circle_tf.CircleLoss, circle_tf.ClassCircleLoss])
def test_config_round_trip(loss):
    original = loss(
        0.1, 32, "sum", detach_weights=False, one_hot=True, check_finite=True, name="mine"
    )
    restored = keras.losses.deserialize(keras.losses.serialize(original))
    assert type(restored) is loss
    assert restored.get_config() == original.get_config()


def test_defaults_are_the_papers():
    assert circle_tf.CircleLoss().get_config()["gamma"] == 80
    assert circle_tf.CircleLoss().get_config()["margin"] == 0.4
    assert circle_tf.ClassCircleLoss().get_config()["gamma"] == 256
    assert circle_tf.ClassCircleLoss().get_config()["margin"] == 0.25


@pytest.mark.parametrize(
    ("labels", "rows", "message"),
    [
        ([0, 1], np.ones((2, 3, 4), np.float32), r"shape \[B, D\]; found shape \(2, 3, 4\)"),
        ([0, 1, 2], np.ones((2, 3), np.float32), "3 labels for 2"),
        (np.eye(2), np.ones((2, 3), np.float32), "one_hot=True"),
    ],
)
def test_bad_shapes(labels, rows, message):
    with pytest.raises(ValueError, match=message):
        circle_tf.CircleLoss()(labels, rows)


def test_integer_embeddings_are_refused():
    with pytest.raises(TypeError, match="float dtype; found int64"):
        circle_tf.CircleLoss()([0, 1], np.ones((2, 3), np.int64))


def test_class_level_refuses_ids_out_of_range_and_is_nan_under_xla():
    cosines = np.zeros((2, 3), np.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0\.\.2 for 3 classes"):
        circle_tf.ClassCircleLoss()([0, 3], cosines)
    value, _ = run(circle_tf.ClassCircleLoss(), np.array([0, 3]), cosines, mode="xla")
    assert np.isnan(value)


def test_fractional_labels_are_refused_and_nan_under_xla():
    rows, _ = batch(14, size=4, dtype=np.float32)
    labels = np.float32([0, 0, 0.5, 0.5])
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be integer ids"):
        circle_tf.CircleLoss()(labels, rows)
    value, _ = run(circle_tf.CircleLoss(), labels, rows, mode="xla")
    assert np.isnan(value)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="2 classes or more; found 1"):
        circle_tf.ClassCircleLoss()([0], np.ones((1, 1), np.float32))


def test_one_hot_labels_where_asked_for():
    rows, ids = batch(15)
    hot = keras.utils.to_categorical(ids)
    assert float(circle_tf.CircleLoss(one_hot=True)(hot, rows)) == float(
        circle_tf.CircleLoss()(ids, rows)
    )


def test_typical_losses_at_the_start_of_training():
    rows, ids = batch(16, size=128, dim=128, classes=32)
    values, _ = circle_losses.pairwise_losses(rows, ids, margin=0.4, gamma=80.0)
    assert 50 < values.numpy().mean() < 100
