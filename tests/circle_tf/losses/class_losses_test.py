"""The class-level losses that Circle loss is compared with, against plain float64 loops."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import baselines
from circle_tf.losses import class_losses
from tests import strategies

COSINES = np.random.default_rng(0).uniform(-1, 1, (12, 7))
IDS = np.random.default_rng(1).integers(0, 5, 12)


def _cross_entropy(own):
    def oracle(cosines, ids, gamma):
        logits = gamma * cosines
        rows = np.arange(len(ids))
        logits[rows, ids] = gamma * np.array([own(c) for c in cosines[rows, ids]])
        return np.logaddexp.reduce(logits, axis=1) - logits[rows, ids]

    return oracle


def _arc(cosine):
    angle = math.acos(cosine) + 0.5
    return math.cos(angle) if angle < math.pi else -1 - (-math.cos(0.5) - cosine)


CASES = {
    "am": (
        lambda **o: baselines.AMSoftmaxLoss(0.35, 20.0, **o),
        _cross_entropy(lambda c: c - 0.35),
    ),
    "norm": (lambda **o: baselines.NormFaceLoss(20.0, **o), _cross_entropy(lambda c: c)),
    "arc": (lambda **o: baselines.ArcFaceLoss(0.5, 20.0, **o), _cross_entropy(_arc)),
}
cases = pytest.mark.parametrize(("make", "oracle"), CASES.values(), ids=CASES)


@cases
@pytest.mark.parametrize("jit", [False, True])
def test_each_row_is_the_loop(make, oracle, jit):
    loss = make(reduction="none")
    compute = tf.function(lambda cosines: loss(IDS, cosines), jit_compile=jit)
    expected = oracle(np.array(COSINES), IDS, 20.0)
    np.testing.assert_allclose(compute(tf.constant(COSINES)), expected, rtol=1e-9, atol=1e-12)


@cases
@pytest.mark.parametrize("jit", [False, True])
def test_smoothed_labels_weigh_the_loss_of_every_class(make, oracle, jit):
    loss = make(reduction="none", label_smoothing=0.2)
    compute = tf.function(lambda cosines: loss(IDS, cosines), jit_compile=jit)
    own = oracle(np.array(COSINES), IDS, 20.0)
    # logsumexp - logit of each class, the own with its margin.
    rows = np.arange(len(IDS))
    logits = 20.0 * COSINES
    others = np.where(np.arange(7) == IDS[:, None], -np.inf, logits)
    gap = own + np.log1p(-np.exp(-own))  # Of the others' logsumexp to the own logit.
    logits[rows, IDS] = np.logaddexp.reduce(others, axis=1) - gap
    each = np.logaddexp.reduce(logits, axis=1)[:, None] - logits
    expected = 0.8 * own + 0.2 * each.mean(axis=1)
    np.testing.assert_allclose(compute(tf.constant(COSINES)), expected, rtol=1e-7, atol=1e-9)
    _check_gradient(make(label_smoothing=0.2))


@pytest.mark.parametrize("make", [baselines.AMSoftmaxLoss, baselines.NormFaceLoss])
def test_a_part_of_the_label_is_left(make):
    with pytest.raises(ValueError, match="label_smoothing must be 0 or more, below 1; found 1"):
        make(label_smoothing=1)


@cases
def test_gradient_is_that_of_the_value(make, oracle):
    _check_gradient(make())
    del oracle


def _check_gradient(loss):
    cosines = tf.constant(0.9 * COSINES)
    with tf.GradientTape() as tape:
        tape.watch(cosines)
        value = loss(IDS, cosines)
    step = np.random.default_rng(9).normal(size=COSINES.shape)
    ahead, behind = (loss(IDS, cosines + h * step) for h in (1e-6, -1e-6))
    slope = float(ahead - behind) / 2e-6
    found = float(tf.reduce_sum(tape.gradient(value, cosines) * step))
    assert found == pytest.approx(slope, rel=1e-5)


def test_proxy_anchor_is_the_loop():
    gamma, margin = 32.0, 0.1
    pulled, pushed = [], []
    for c in range(7):
        own = COSINES[IDS == c, c]
        if len(own):
            pulled.append(np.log1p(np.sum(np.exp(-gamma * (own - margin)))))
        pushed.append(np.log1p(np.sum(np.exp(gamma * (COSINES[IDS != c, c] + margin)))))
    loss = baselines.ProxyAnchorLoss()
    found = loss(IDS, tf.constant(COSINES))
    assert float(found) == pytest.approx(np.mean(pulled) + np.mean(pushed))
    _check_gradient(loss)


def test_proxy_anchor_takes_no_weights():
    with pytest.raises(ValueError, match="takes no sample_weight: its terms belong to classes"):
        baselines.ProxyAnchorLoss()(IDS, tf.constant(COSINES), sample_weight=np.ones(12))


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize("cosine", [1.0, -1.0, 1.0 + 1e-7, -1.0 - 1e-7])
def test_arc_face_is_finite_where_the_angle_has_no_slope(dtype, cosine):
    cosines = tf.constant([[cosine, 0.2]], dtype)
    loss = baselines.ArcFaceLoss()
    with tf.GradientTape() as tape:
        tape.watch(cosines)
        value = loss([0], cosines)
    gradient = tape.gradient(value, cosines)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert float(gradient[0, 0]) <= 0


def test_the_arc_falls_everywhere():
    cosines = tf.constant(np.linspace(-1, 1, 4001))
    turned = class_losses.arc_cosines(cosines, margin=0.5).numpy()
    assert np.all(np.diff(turned) > 0)
    inside = np.arccos(cosines) < math.pi - 0.5
    expected = np.cos(np.arccos(cosines) + 0.5)
    np.testing.assert_allclose(turned[inside][:-1], expected[inside][:-1], atol=1e-9)
    assert turned[-1] == pytest.approx(math.cos(0.5), abs=1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        baselines.AMSoftmaxLoss(0.2, 30.0),
        baselines.NormFaceLoss(8.0, "sum"),
        baselines.ArcFaceLoss(0.3, label_smoothing=0.1),
        baselines.ProxyAnchorLoss(0.2, 16.0),
    ],
    ids=lambda loss: loss.name,
)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_configs_come_back_and_half_precision_is_computed_in_float32(loss, dtype):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    cosines = tf.cast(tf.constant(COSINES), dtype)
    value = again(IDS, cosines)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(float(loss(IDS, tf.cast(cosines, "float32"))), rel=1e-6)


@pytest.mark.parametrize("make", [baselines.AMSoftmaxLoss, baselines.ProxyAnchorLoss])
def test_ids_out_of_range_are_refused_and_nan_under_xla(make):
    loss = make()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"Class ids must be in 0\.\.6"):
        loss([7] * 12, tf.constant(COSINES))
    compiled = tf.function(lambda: loss([7] * 12, tf.constant(COSINES)), jit_compile=True)
    assert np.isnan(compiled())


@pytest.mark.parametrize("loss", [baselines.ArcFaceLoss(), baselines.ProxyAnchorLoss()])
def test_two_replicas_are_one_batch(loss):
    def run(ids, cosines):
        with tf.GradientTape() as tape:
            tape.watch(cosines)
            value = loss(ids, cosines)
        return value, tape.gradient(value, cosines)

    value, gradient = run(IDS, tf.constant(COSINES))
    values, gradients = strategies.split(run, (IDS, COSINES), at=5)
    assert sum(map(float, values)) == pytest.approx(float(value))
    np.testing.assert_allclose(np.concatenate(gradients), gradient, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baselines.ArcFaceLoss(2.0), "margin must be 0 to pi/2 radians; found 2.0"),
        (lambda: baselines.AMSoftmaxLoss(gamma=-1), "gamma must be"),
        (lambda: baselines.ProxyAnchorLoss(gamma=0), "gamma must be"),
        (lambda: baselines.AMSoftmaxLoss()([0], [[1.0]]), "wants 2 classes or more; found 1"),
        (lambda: baselines.AMSoftmaxLoss()([0, 1], [[1.0, 0.0]]), "Found 2 labels for 1 cosines"),
        (lambda: baselines.NormFaceLoss()([0], [1.0]), r"cosines of shape \[B, C\]"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
