"""Thresholds against loops over all pairs; intervals against samples that are drawn out."""

import json
import warnings

import numpy as np
import pytest

import circle_tf
from circle_tf.evaluation import exact_search


def clouds(classes, examples, *, seed=0, noise=0.45, dim=8):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, dim))
    ids = np.repeat(np.arange(classes), examples)
    return centres[ids] + noise * np.sqrt(dim) * rng.normal(size=(len(ids), dim)), ids


def calibrate(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Of small samples.
        return circle_tf.calibrate(*args, **options)


def pairs_of(rows, ids):
    """Scores of pairs by loops: of one class, of two classes."""
    unit = exact_search.on_grid(rows, name="rows")
    found = {True: [], False: []}
    for a in range(len(unit)):
        for b in range(a):
            found[bool(ids[a] == ids[b])].append(unit[a] @ unit[b])
    return np.array(found[True]), np.array(found[False])


@pytest.mark.parametrize("rate", [0.001, 0.03, 0.5, 0.99])
def test_verification_is_a_count_of_all_pairs(rate):
    rows, ids = clouds(11, 5)
    genuine, impostors = pairs_of(rows, ids)
    (found,) = calibrate(rows, ids, false_accept_rates=rate).verification
    assert found.measured_rate == np.mean(impostors >= found.threshold) <= rate
    lower = np.unique(impostors[impostors < found.threshold])
    assert np.mean(impostors >= lower[-1]) > rate  # The next threshold accepts too many.
    assert found.true_accept_rate == np.mean(genuine >= found.threshold)
    assert found.true_accept_rate == circle_tf.tar_at_far(
        np.append(genuine, impostors), np.arange(len(genuine) + len(impostors)) < len(genuine), rate
    )
    assert found.expected_errors == pytest.approx(rate * len(impostors))


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_search_looks_each_up_among_all_others(rate):
    rows, ids = clouds(11, 5)
    (found,) = calibrate(rows, ids, false_accept_rates=rate).search
    unit = exact_search.on_grid(rows, name="rows")
    strangers, right = [], []
    for row in range(len(unit)):
        scores = unit @ unit[row]
        strangers.append(scores[ids != ids[row]].max())
        scores[row] = -np.inf
        best = int(np.argmax(scores))
        right.append(ids[best] == ids[row] and scores[best] >= found.threshold)
    assert found.measured_rate == np.mean(np.array(strangers) >= found.threshold) <= rate
    assert found.true_accept_rate == np.mean(right)


def test_ties_are_accepted_or_refused_as_one():
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])[[0, 0, 1, 1, 0]]
    (found,) = calibrate(rows, [0, 0, 1, 1, 2], false_accept_rates=0.25).verification
    # Two pairs of eight are of copies in two classes: at most two may pass.
    assert (found.measured_rate, found.threshold) == (0.25, pytest.approx(0.0, abs=1e-6))
    (found,) = calibrate(rows, [0, 0, 1, 1, 2], false_accept_rates=0.2).verification
    assert found.measured_rate == 0.0 and found.threshold > 1.0


def test_intervals_are_those_of_samples_of_whole_identities():
    rows, ids = clouds(9, 4)
    rate, resamples = 0.1, 40
    (found,) = calibrate(
        rows, ids, false_accept_rates=rate, resamples=resamples, confidence=0.8, seed=3
    ).verification
    draws = np.random.default_rng(3).multinomial(9, np.full(9, 1 / 9), size=resamples)
    unit = exact_search.on_grid(rows, name="rows")
    rates, accepted = [], []
    for draw in draws:
        drawn = np.repeat(np.arange(9), draw)  # Identities, some of them several times.
        wrong, right = [], []
        for copy, one in enumerate(drawn):
            mine = unit[ids == one]
            right.extend((mine @ mine.T)[np.triu_indices(4, 1)])
            for other in drawn[copy + 1 :]:
                if other != one:
                    wrong.extend((mine @ unit[ids == other].T).ravel())
        rates.append(np.mean(np.array(wrong) >= found.threshold))
        accepted.append(np.mean(np.array(right) >= found.threshold))
    np.testing.assert_allclose(found.rate_interval, np.quantile(rates, [0.1, 0.9]))
    np.testing.assert_allclose(found.true_accept_interval, np.quantile(accepted, [0.1, 0.9]))


def test_the_rate_of_other_classes_is_within_the_interval():
    found = calibrate(*clouds(60, 6), false_accept_rates=[0.01, 0.05])
    _, impostors = pairs_of(*clouds(150, 4, seed=1))
    for one in found.verification:
        low, high = one.rate_interval
        assert low < np.mean(impostors >= one.threshold) < high
        assert one.threshold_interval[0] < one.threshold < one.threshold_interval[1]


def test_what_is_held_does_not_change_the_numbers(monkeypatch):
    rows, ids = clouds(30, 8)
    all_held = calibrate(rows, ids, false_accept_rates=[0.002, 0.99], resamples=5)
    monkeypatch.setattr("circle_tf.evaluation.neighbours._MERGED_AT", 100)
    few = calibrate(rows, ids, false_accept_rates=0.002, resamples=5)
    assert few.verification == all_held.verification[:1]
    assert few.search == all_held.search[:1]


def test_draws_without_impostors_do_not_count():
    rows, ids = clouds(2, 20)  # Half of the draws hold one identity twice.
    (found,) = calibrate(rows, ids, false_accept_rates=0.1).verification
    assert found.threshold_interval == (found.threshold, found.threshold)
    assert found.rate_interval == (found.measured_rate, found.measured_rate)


def test_many_scores_are_resampled_by_rank(monkeypatch):
    rows, ids = clouds(60, 8)
    (whole,) = calibrate(rows, ids, false_accept_rates=0.05).verification
    monkeypatch.setattr("circle_tf.evaluation.calibration._RESAMPLED", 8000)
    (found,) = calibrate(rows, ids, false_accept_rates=0.05).verification
    assert found.threshold == whole.threshold and found != whole
    for name in ("threshold_interval", "rate_interval", "true_accept_interval"):
        expected = getattr(whole, name)
        width = expected[1] - expected[0]
        np.testing.assert_allclose(getattr(found, name), expected, atol=0.25 * width)


def test_samples_that_are_too_small_are_told():
    rows, ids = clouds(10, 4)  # 720 impostor pairs, 40 strangers.
    with pytest.warns(UserWarning, match=r"search at 0\.05 \(2 false accepts\): 30 are needed"):
        found = circle_tf.calibrate(rows, ids, false_accept_rates=0.05)
    assert found.verification[0].reliable and not found.search[0].reliable
    with pytest.warns(UserWarning, match=r"verification at 0\.3 .* 10 classes; found 9 classes"):
        found = circle_tf.calibrate(*clouds(9, 40), false_accept_rates=0.3)
    assert not found.verification[0].reliable and found.verification[0].expected_errors > 1000


def test_it_is_written_and_printed():
    found = calibrate(*clouds(6, 4), false_accept_rates=[0.1, 0.01], resamples=3)
    read = json.loads(json.dumps(found.as_dict()))
    assert read["counts"] == {"identities": 6, "examples": 24, "genuine": 36, "impostors": 240}
    assert [one["false_accept_rate"] for one in read["search"]] == [0.01, 0.1]
    assert circle_tf.Calibration.from_dict(read) == found
    lines = found.table().split("\n")
    assert len(lines) == 5 and len({len(line.partition("  too")[0]) for line in lines}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"false_accept_rates": 0}, "false_accept_rates must be above 0 and below 1; found 0"),
        ({"confidence": 1.0}, "confidence must be above 0 and below 1; found 1.0"),
        ({"resamples": 0}, "resamples must be a whole number of 1 or more; found 0"),
        ({"labels": np.zeros(8, int)}, "two classes or more, .* found 1 classes, of at most 8"),
        ({"labels": np.arange(8)}, "one with two examples or more; found 8 classes, of at most 1"),
    ],
)
def test_bad_input(given, message):
    rows, ids = clouds(2, 4)
    with pytest.raises(ValueError, match=message):
        circle_tf.calibrate(rows, given.pop("labels", ids), **given)
