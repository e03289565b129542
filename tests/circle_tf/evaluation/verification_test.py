"""Verification against scikit-learn's ROC and plain loops, with ties."""

import numpy as np
import pytest
from sklearn import metrics

from circle_tf.evaluation import verification
from circle_tf.evaluation.verification import k_fold_accuracy, tar_at_far


def _pairs(seed, *, count=200, ties=False):
    random = np.random.default_rng(seed)
    same = random.random(count) < 0.4
    scores = random.normal(size=count) + 1.5 * same
    return (np.round(scores) if ties else scores), same


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("far", [0.0, 1e-3, 0.01, 0.1, 0.5, 1.0])
def test_tar_at_far_is_on_scikit_learns_curve(seed, ties, far):
    scores, same = _pairs(seed, ties=ties)
    rates, accepted, _ = metrics.roc_curve(same, scores, drop_intermediate=False)
    assert tar_at_far(scores, same, far) == pytest.approx(accepted[rates <= far].max())
    off = np.abs(rates - far)
    lower = rates[off <= off.min() + 1e-12].min()
    expected = accepted[rates == lower].max()
    assert tar_at_far(scores, same, far, rule="nearest") == pytest.approx(expected)


def test_a_rate_that_is_met_exactly_is_allowed():
    scores = np.concatenate([np.arange(1000.0), [999.5, 998.5, 0]])
    same = np.arange(1003) >= 1000
    assert tar_at_far(scores, same, 1e-3) == pytest.approx(2 / 3)
    assert tar_at_far(scores, same, 0.9e-3) == pytest.approx(1 / 3)
    assert tar_at_far(scores, same, 0.9e-3, rule="nearest") == pytest.approx(2 / 3)


def _middle_of_the_best(scores, same):
    """The threshold of those that get most pairs right, by trying all; of several the middle."""
    values = np.unique(scores)
    tried = [-np.inf, *((values[:-1] + values[1:]) / 2), np.inf]
    right = [np.sum((scores >= threshold) == same) for threshold in tried]
    best = [threshold for threshold, n in zip(tried, right, strict=True) if n == max(right)]
    return best[len(best) // 2]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_is_the_best_of_the_other_folds(seed, ties):
    scores, same = _pairs(seed, ties=ties)
    expected = []
    for fold in range(10):
        own = np.arange(200) // 20 == fold
        threshold = _middle_of_the_best(scores[~own], same[~own])
        expected.append(np.mean((scores[own] >= threshold) == same[own]))
    np.testing.assert_array_equal(k_fold_accuracy(scores, same, folds=10), expected)


def test_separable_pairs_are_all_right():
    same = np.arange(20) % 2 == 0
    assert k_fold_accuracy(np.where(same, 0.8, 0.2), same).tolist() == [1.0] * 10
    report = verification.verification_report(np.where(same, 0.8, 0.2), same, fars=(0.1,))
    expected = {"accuracy": 1, "accuracy_std": 0, "tar_at_far_0.1": 1, "genuine": 10}
    assert report == {**expected, "impostors": 10}


def test_pair_similarities_are_cosines():
    first, second = np.random.default_rng(0).normal(size=(2, 50, 16)) * 1e3
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    expected = np.sum(first * second, axis=1) / norms
    np.testing.assert_allclose(verification.pair_similarities(first, second), expected, atol=2e-8)


def test_flip_test_adds_the_mirror_image():
    images = np.random.default_rng(0).normal(size=(3, 4, 5, 2))
    found = verification.flip_test_embeddings(lambda x: x.reshape(3, -1), images)
    expected = (images + images[:, :, ::-1]).reshape(3, -1)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


SAME = [True, False, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tar_at_far([1, 2], SAME, 0.1), r"shape \[P\]; found \[2\] and \[4\]"),
        (lambda: tar_at_far([1, 2], [True, True], 0.1), "both kinds; found genuine pairs only"),
        (lambda: tar_at_far([1, 2], [0, 0], 0.1), "found impostor pairs only"),
        (lambda: tar_at_far([1, 2], [3, 0], 0.1), "same must be bool"),
        (lambda: tar_at_far([1, np.nan, 1, 1], SAME, 0.1), "must not be NaN; pair 1"),
        (lambda: tar_at_far([1, 2, 3, 4], SAME, 2), "far must be 0 to 1; found 2"),
        (lambda: tar_at_far([1, 2, 3, 4], SAME, [0, 1]), r"far must be one number; found \[0, 1\]"),
        (lambda: tar_at_far([1, 2, 3, 4], SAME, 0, rule="x"), "'at_most' or 'nearest'; found 'x'"),
        (lambda: k_fold_accuracy([1, 2, 3, 4], SAME, folds=3), "found 3 folds, 4 pairs"),
        (lambda: k_fold_accuracy([1, 2, 3, 4], SAME, folds=1), "folds must be a whole number of 2"),
        (lambda: verification.pair_similarities([[1]], [[1, 2]]), r"found \[1, 1\] and \[1, 2\]"),
        (lambda: verification.flip_test_embeddings(abs, [[1]]), r"\[N, H, W, C\]; found \[1, 1\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_one_rate_needs_no_list():
    pairs = [0.9, 0.1, 0.8, 0.3], [True, False] * 2
    one = verification.verification_report(*pairs, folds=2, fars=0.5)
    assert one == verification.verification_report(*pairs, folds=2, fars=[0.5])
