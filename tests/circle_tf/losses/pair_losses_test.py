"""The pair-wise losses that Circle loss is compared with, against plain float64 loops."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf import baselines
from tests import stacks, strategies

ROWS = np.random.default_rng(5).normal(size=(16, 5))
IDS = np.random.default_rng(6).integers(0, 5, 16)
UNIT = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
S = UNIT @ UNIT.T
D = np.sqrt(np.maximum(2 - 2 * S, 0))


def _sides(i):
    same = IDS == IDS[i]
    return [j for j in np.flatnonzero(same) if j != i], np.flatnonzero(~same)


def _unified(i, p, n):
    return np.log1p(sum(np.exp(30.0 * (S[i, k] - S[i, j] + 0.2)) for j in p for k in n))


def _contrastive(i, p, n):
    pushed = [(1.2 - D[i, k]) ** 2 for k in n if D[i, k] < 1.2]
    return np.mean([D[i, j] ** 2 for j in p]) + (np.mean(pushed) if pushed else 0)


def _hinge(gap):
    return max(0.0, gap + 0.3)


def _soft(gap):
    return np.log1p(np.exp(gap))


def _hard(i, p, n, *, loss=_hinge):
    return loss(max(D[i, j] for j in p) - min(D[i, k] for k in n))


def _semihard(i, p, n):
    chosen = [
        min([D[i, k] for k in n if D[i, k] > D[i, j]], default=max(D[i, k] for k in n)) for j in p
    ]
    return np.mean([_hinge(D[i, j] - d) for j, d in zip(p, chosen, strict=True)])


def _all(i, p, n, *, loss=_hinge):
    values = [loss(D[i, j] - D[i, k]) for j in p for k in n]
    active = [value for value in values if value > 0]
    return np.mean(active) if active else 0.0


def _n_pairs(i, p, n):
    return np.mean([np.log1p(sum(np.exp(9.0 * (S[i, k] - S[i, j])) for k in n)) for j in p])


def _lifted(i, p, n):
    values = []
    for j in p:
        nearby = [np.exp(0.9 - D[end, k]) for end in (i, j) for k in _sides(end)[1]]
        values.append(max(0.0, D[i, j] + np.log(sum(nearby))) ** 2 / 2)
    return np.mean(values)


def _multi(i, p, n, *, epsilon=0.1):
    if epsilon is not None:
        low, high = min(S[i, j] for j in p), max(S[i, k] for k in n)
        n = [k for k in n if S[i, k] > low - epsilon]
        p = [j for j in p if S[i, j] < high + epsilon]
    pulled = np.log1p(sum(np.exp(-2 * (S[i, j] - 0.5)) for j in p)) / 2
    return pulled + np.log1p(sum(np.exp(50 * (S[i, k] - 0.5)) for k in n)) / 50


CASES = {
    "unified": (lambda **o: baselines.UnifiedLoss(0.2, 30.0, **o), _unified),
    "contrastive": (lambda **o: baselines.ContrastiveLoss(1.2, **o), _contrastive),
    "semihard": (lambda **o: baselines.TripletLoss(0.3, **o), _semihard),
    "hard": (lambda **o: baselines.TripletLoss(0.3, "hard", **o), _hard),
    "soft hard": (
        lambda **o: baselines.TripletLoss(mining="hard", soft=True, **o),
        lambda i, p, n: _hard(i, p, n, loss=_soft),
    ),
    "all": (lambda **o: baselines.TripletLoss(0.3, "all", **o), _all),
    "soft all": (
        lambda **o: baselines.TripletLoss(mining="all", soft=True, **o),
        lambda i, p, n: _all(i, p, n, loss=_soft),
    ),
    "n-pairs": (lambda **o: baselines.NPairsLoss(9.0, **o), _n_pairs),
    "lifted": (lambda **o: baselines.LiftedStructureLoss(0.9, **o), _lifted),
    "multi-similarity": (lambda **o: baselines.MultiSimilarityLoss(**o), _multi),
    "unmined": (
        lambda **o: baselines.MultiSimilarityLoss(epsilon=None, **o),
        lambda i, p, n: _multi(i, p, n, epsilon=None),
    ),
}
cases = pytest.mark.parametrize(("make", "oracle"), CASES.values(), ids=CASES)


def _value_and_gradient(loss, ids, rows):
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = loss(ids, rows)
    return value, tape.gradient(value, rows)


@cases
@pytest.mark.parametrize("jit", [False, True])
def test_each_anchor_is_the_loop(make, oracle, jit):
    loss = make(reduction="none")
    compute = tf.function(lambda rows: loss(IDS, rows), jit_compile=jit)
    found = compute(tf.constant(3 * ROWS))  # Length does not matter.
    expected = [oracle(i, *_sides(i)) if len(_sides(i)[0]) else 0.0 for i in range(16)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@cases
def test_gradient_is_that_of_the_value(make, oracle):
    rows = tf.constant(ROWS)
    loss, step = make(), np.random.default_rng(9).normal(size=ROWS.shape)
    _, gradient = _value_and_gradient(loss, IDS, rows)
    ahead, behind = (loss(IDS, tf.constant(ROWS + h * step)) for h in (1e-6, -1e-6))
    slope = float(ahead - behind) / 2e-6
    assert float(tf.reduce_sum(gradient * step)) == pytest.approx(slope, rel=1e-5, abs=1e-8)
    del oracle


@cases
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_half_precision_is_computed_in_float32(make, oracle, dtype):
    rows = tf.cast(tf.constant(ROWS), dtype)
    loss = make()
    value, gradient = _value_and_gradient(loss, IDS, rows)
    assert value.dtype == tf.float32 and gradient.dtype == rows.dtype
    assert float(value) == pytest.approx(float(loss(IDS, tf.cast(rows, tf.float32))), rel=1e-6)
    del oracle


@cases
def test_anchors_without_pairs_and_equal_rows_are_harmless(make, oracle):
    loss = make()
    for ids in ([1, 2, 3], [1, 1, 1]):
        value, gradient = _value_and_gradient(loss, ids, tf.constant(ROWS[:3]))
        assert float(value) == 0 and not np.any(gradient)
    rows = tf.constant(np.concatenate([ROWS[:2], ROWS[:2], np.zeros((1, 5))]))
    value, gradient = _value_and_gradient(loss, [0, 1, 0, 1, 0], rows)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    del oracle


@cases
def test_nan_is_seen(make, oracle):
    rows = np.array(ROWS)
    rows[3, 0] = np.nan
    assert np.isnan(make()(IDS, tf.constant(rows)))
    with pytest.raises(tf.errors.InvalidArgumentError, match="NaN or inf in y_pred"):
        make(check_finite=True)(IDS, tf.constant(rows))
    del oracle


@cases
def test_wide_ids_are_exact_and_configs_come_back(make, oracle):
    loss = make()
    wide = IDS.astype(np.int64) + 2**53
    assert float(loss(wide, tf.constant(ROWS))) == float(loss(IDS, tf.constant(ROWS)))
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(IDS, tf.constant(ROWS))) == float(loss(IDS, tf.constant(ROWS)))
    del oracle


def test_as_gamma_grows_the_unified_loss_is_the_hardest_triplets():
    """Eq. 4 of the paper: loss / gamma goes to relu(max s_n - min s_p + m)."""
    loss = baselines.UnifiedLoss(0.2, 1e5, reduction="none")
    found = loss(IDS, tf.constant(ROWS)) / 1e5
    for i in range(16):
        p, n = _sides(i)
        if p:
            hardest = max(S[i, k] for k in n) - min(S[i, j] for j in p) + 0.2
            assert float(found[i]) == pytest.approx(max(0.0, hardest), abs=1e-4)


def test_the_unified_loss_with_one_key_a_class_is_am_softmax():
    """Eq. 2 and 3: class-level labels make eq. 1 AM-Softmax, and NormFace without a margin."""
    cosines = UNIT @ UNIT[:6].T
    ids = np.arange(16) % 6
    for margin, loss in (
        (0.35, baselines.AMSoftmaxLoss(0.35, 64.0, "none")),
        (0.0, baselines.NormFaceLoss(64.0, "none")),
    ):
        found = loss(ids, tf.constant(cosines))
        for i, name in enumerate(ids):
            others = np.delete(cosines[i], name)
            terms = 64.0 * (others - cosines[i, name] + margin)
            expected = np.logaddexp.reduce(np.append(terms, 0.0))
            assert float(found[i]) == pytest.approx(expected)


@stacks.needs_keras_3
@pytest.mark.parametrize("name", ["unified", "semihard", "lifted", "multi-similarity"])
def test_it_trains_in_fit(name):
    loss = CASES[name][0]()
    keras.utils.set_random_seed(0)
    pixels = keras.Input((5,))
    model = circle_tf.EmbeddingModel(pixels, circle_tf.UnitEmbedding(4)(pixels))
    model.compile(keras.optimizers.Adam(0.05), loss=loss)
    rows, ids = ROWS.astype(np.float32), IDS
    before = model.evaluate(rows, ids, verbose=0, batch_size=16)
    model.fit(rows, ids, epochs=20, batch_size=16, shuffle=False, verbose=0)
    assert model.evaluate(rows, ids, verbose=0, batch_size=16) < before


@cases
def test_two_replicas_are_one_batch(make, oracle):
    loss = make()
    value, gradient = _value_and_gradient(loss, IDS, tf.constant(ROWS))
    values, gradients = strategies.split(
        lambda ids, rows: _value_and_gradient(loss, ids, rows), (IDS, ROWS), at=11
    )
    assert sum(map(float, values)) == pytest.approx(float(value))
    np.testing.assert_allclose(np.concatenate(gradients), gradient, atol=1e-12)
    del oracle


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: baselines.UnifiedLoss(gamma=0), "gamma must be"),
        (lambda: baselines.ContrastiveLoss(0), "margin must be above 0; found 0"),
        (lambda: baselines.TripletLoss(-1), "margin must be above 0; found -1"),
        (lambda: baselines.TripletLoss(mining="x"), "one of semihard, hard, all; found 'x'"),
        (lambda: baselines.MultiSimilarityLoss(epsilon=-1), "epsilon must be 0 or more"),
        (lambda: baselines.MultiSimilarityLoss(beta=-1), "beta must be above 0"),
        (lambda: baselines.LiftedStructureLoss(reduction="x"), "reduction"),
        (lambda: baselines.NPairsLoss()([[0, 1]], [[1.0]]), r"\[B\] or \[B, 1\]"),
        (lambda: baselines.NPairsLoss()([0], [1.0]), r"embeddings of shape \[B, D\]"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(ValueError, match=message):
        make()
