import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.data.sampler import PKSampler, raw_bits

LABELS = np.repeat([3, 1, 2**40, -5, 8], [4, 9, 6, 5, 7])


def _sampler(labels=LABELS, p=2, k=3, seed=0):
    return PKSampler(labels, classes_per_batch=p, examples_per_class=k, seed=seed)


@settings(deadline=None, max_examples=50)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=9),
    p=st.integers(2, 5),
    k=st.integers(1, 6),
    step=st.integers(0, 2**40),
    seed=st.integers(0, 2**63 - 1),
)
def test_batch_is_p_classes_of_k_and_depends_on_seed_and_step_alone(sizes, p, k, step, seed):
    p = min(p, len(sizes))
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer than K
        sampler, other = (_sampler(labels, p, k, seed) for _ in range(2))
    other(step + 5)  # leaves no trace
    rows = sampler(step)
    np.testing.assert_array_equal(rows, other(step))
    assert rows.shape == (p * k,) and rows.dtype == np.int64
    by_class = labels[rows].reshape(p, k)
    assert (by_class == by_class[:, :1]).all()
    assert len(set(by_class[:, 0])) == p
    for class_, members in zip(by_class[:, 0], rows.reshape(p, k), strict=True):
        n = sizes[class_]
        counts = np.unique(members, return_counts=True)[1]
        assert len(counts) == min(n, k)  # all distinct, or every one of the class
        assert counts.max() <= -(-k // n)


def test_known_batches():
    # Written down once: fails when what a seed means changes, as resumed runs would notice.
    sampler = _sampler(np.arange(12) // 4, p=2, k=2, seed=7)
    assert [sampler(step).tolist() for step in (0, 1, 10**9)] == [
        [6, 4, 10, 11],
        [9, 8, 5, 7],
        [2, 1, 7, 4],
    ]


def test_each_class_comes_once_per_round_and_each_example_once_per_cycle():
    labels = np.repeat(np.arange(6), 8)
    sampler = _sampler(labels, p=3, k=2)
    assert sampler.steps_per_epoch == 8
    for round_ in range(8):
        rows = np.concatenate([sampler(2 * round_ + place) for place in range(2)])
        np.testing.assert_array_equal(np.bincount(labels[rows]), np.full(6, 2))
    for cycle in range(2):
        rows = np.concatenate([sampler(8 * cycle + step) for step in range(8)])
        np.testing.assert_array_equal(np.sort(rows), np.arange(48))


def test_classes_left_over_by_a_round_change():
    sampler = _sampler(p=2)  # 5 classes: one is left out in each round
    left_out = {
        frozenset(LABELS) - {LABELS[row] for step in (2 * r, 2 * r + 1) for row in sampler(step)}
        for r in range(40)
    }
    assert left_out == {frozenset([label]) for label in set(LABELS)}


def test_examples_are_used_evenly_in_the_long_run():
    sampler = _sampler()
    rows = np.concatenate([sampler(step) for step in range(2000)])
    for label in np.unique(LABELS):
        counts = np.bincount(rows, minlength=len(LABELS))[label == LABELS]
        assert counts.max() < 1.2 * counts.min()


def test_seeds_and_rounds_differ():
    batches = {tuple(_sampler(seed=seed)(step)) for seed in range(5) for step in range(0, 10, 2)}
    assert len(batches) == 25


def test_small_classes_are_told_once():
    labels = np.repeat(np.arange(15), [1, 2] + [1] * 10 + [3, 3, 3])
    with pytest.warns(UserWarning) as told:
        sampler = _sampler(labels, p=4)
        for step in range(20):
            sampler(step)
    assert len(told) == 1
    message = str(told[0].message)
    assert "12 of 15 classes" in message
    assert "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..." in message
    assert told[0].filename == __file__


def test_steps_per_epoch_is_at_least_one():
    assert _sampler(p=2, k=3).steps_per_epoch == 31 // 6
    assert _sampler(p=5, k=4).steps_per_epoch == 1


def test_column_of_labels_is_taken():
    np.testing.assert_array_equal(_sampler(LABELS[:, None])(3), _sampler()(3))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"p": 6}, "at least classes_per_batch=6 classes, found 5"),
        ({"p": 1}, "classes_per_batch of at least 2.*negatives"),
        ({"k": 0}, "examples_per_class of at least 1; found 0"),
        ({"labels": np.array([], np.int64)}, r"at least one example, found \(0,\)"),
        ({"labels": LABELS.reshape(1, -1)}, r"labels \[N\].*found \(1, 31\)"),
        ({"labels": LABELS.astype(float)}, "integer labels, found float64"),
        ({"labels": np.array(["a", "b"])}, "integer labels, found <U1.*np.unique"),
        ({"seed": -1}, "seed from 0 to"),
        ({"seed": 2**63}, "seed from 0 to"),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        _sampler(**change)


def _nearest(sizes, n):
    """Labels of classes of these sizes, and for each class n others, those that follow it."""
    classes = np.arange(len(sizes))
    return np.repeat(classes, sizes), (classes[:, None] + np.arange(1, n + 1)) % len(sizes)


def _grouped(labels, nearest, *, p=6, group_size=3, seed=0):
    size = {"classes_per_batch": p, "examples_per_class": 2, "seed": seed}
    return PKSampler(labels, **size, nearest_classes=nearest, group_size=group_size)


@settings(deadline=None, max_examples=50)
@given(
    number=st.integers(3, 12),
    p=st.integers(2, 12),
    n=st.integers(1, 11),
    group_size=st.integers(2, 12),
    step=st.integers(0, 2**40),
)
def test_groups_are_a_class_and_those_near_to_it(number, p, n, group_size, step):
    p, n = min(p, number), min(n, number - 1)
    group_size = min(group_size, p, n + 1)
    labels, nearest = _nearest([4] * number, n)
    sampler, other = (_grouped(labels, nearest, p=p, group_size=group_size) for _ in range(2))
    other(step + 5)  # leaves no trace
    rows = sampler(step)
    np.testing.assert_array_equal(rows, other(step))
    classes = labels[rows].reshape(p, 2)[:, 0]
    assert (labels[rows].reshape(p, 2) == classes[:, None]).all() and len(set(classes)) == p
    # The longest groups that the order allows: what does not belong to one leads another, and
    # only where it must.
    leader, size = classes[0], 1
    for place in range(1, p):
        if size < group_size and classes[place] in nearest[leader]:
            size += 1
        else:
            full = set(nearest[leader]) <= set(classes[:place])
            assert size == group_size or full
            leader, size = classes[place], 1


def test_known_batches_of_groups():
    # Written down once: fails when what a seed means changes, as resumed runs would notice.
    sampler = _grouped(*_nearest([4] * 9, 3), p=4, group_size=2, seed=7)
    assert [sampler(step).tolist() for step in (0, 1, 10**9)] == [
        [34, 32, 10, 11, 16, 18, 29, 31],
        [5, 7, 12, 15, 24, 25, 33, 35],
        [14, 12, 27, 26, 2, 1, 8, 10],
    ]


def test_each_class_leads_once_in_a_round():
    labels, nearest = _nearest([4] * 12, 1)  # Of twins that follow each other, in groups of two.
    sampler = _grouped(labels, nearest, p=2, group_size=2)
    for round_ in range(3):
        leaders = [labels[sampler(12 * round_ + place)[0]] for place in range(12)]
        assert sorted(leaders) == list(range(12))


def test_all_near_classes_come_and_other_examples_each_time():
    labels, nearest = _nearest([8] * 12, 4)
    sampler = _grouped(labels, nearest, p=2, group_size=2)
    batches = [sampler(step) for step in range(2000)]
    led = [labels[rows[2]] for rows in batches if labels[rows[0]] == 5]
    counts = np.bincount(led, minlength=12)
    assert set(np.flatnonzero(counts)) == {6, 7, 8, 9} and counts[6:10].min() > 25
    counts = np.bincount(np.concatenate(batches), minlength=len(labels))
    assert counts.max() < 1.6 * counts.min()


@pytest.mark.parametrize(
    ("nearest", "group_size", "message"),
    [
        (np.ones([4, 1], int), 2, r"nearest_classes \[5, n\].*found int64 \[4, 1\].*makes them"),
        (np.ones([5, 0], int), 2, r"found int64 \[5, 0\]"),
        (np.ones(5, int), 2, r"found int64 \[5\]"),
        (np.ones([5, 1]), 2, r"found float64 \[5, 1\]"),
        ([[1], [0], [0], [3], [0]], 2, r"other classes than its own.*found \[3\] in row 3"),
        ([[1, 2], [0, 2], [0, 1], [1, 1], [0, 1]], 2, r"each once.*found \[1, 1\] in row 3"),
        ([[1], [0], [0], [5], [0]], 2, r"places 0 to 4.*found \[5\] in row 3"),
        ([[1], [0], [0], [-1], [0]], 2, r"places 0 to 4.*found \[-1\] in row 3"),
        ([[1], [0], [0], [0], [0]], 3, "group_size from 2 to 2, .*1 nearest_classes.*found 3"),
        ([[1], [0], [0], [0], [0]], 1, "group_size from 2 to 2, .*=4 and 1 .*found 1"),
    ],
)
def test_bad_nearest_classes(nearest, group_size, message):
    with pytest.raises(ValueError, match=message):
        _grouped(np.repeat(np.arange(5), 3), nearest, p=4, group_size=group_size)


def test_negative_step():
    with pytest.raises(ValueError, match="from 0 on, found -1"):
        _sampler()(-1)


def test_raw_bits_of_different_places_differ():
    places = [(0,), (1,), (0, 1), (0, 0, 1), (1, 1, 1)]
    assert len({tuple(raw_bits(3, seed=5, place=place)) for place in places}) == 5
    long, short = (raw_bits(count, seed=5, place=(2, 3, 4)) for count in (9, 2))
    np.testing.assert_array_equal(long[:2], short)


def test_whole_numbers_of_python_are_labels():
    labels = LABELS.astype(object)
    np.testing.assert_array_equal(_sampler(labels)(3), _sampler()(3))
