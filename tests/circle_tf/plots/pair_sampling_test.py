"""Drawn pairs against plain loops."""

import numpy as np
import pytest

from circle_tf.plots import pair_sampling
from tests import reference

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 5))
IDS = np.concatenate([np.repeat(2**31 + np.arange(6), 6), [1, 2, 3, 4]])[RNG.permutation(40)]
BOTH = [pair_sampling.random_pairs, pair_sampling.hardest_pairs]


def test_hardest_pairs_equal_a_plain_loop():
    z = reference.normalize(ROWS)
    expected = []
    for i in range(40):
        positives = [z[i] @ z[j] for j in range(40) if j != i and IDS[j] == IDS[i]]
        if positives:
            negatives = [z[i] @ z[j] for j in range(40) if IDS[j] != IDS[i]]
            expected.append((max(negatives), min(positives)))
    found = np.stack(pair_sampling.hardest_pairs(ROWS, IDS), axis=1)
    # Two anchors share s_n where they are each other's: rounding must not decide their order.
    found, expected = (sorted(np.round(pairs, 5).tolist()) for pairs in (found, expected))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_random_pairs_are_of_the_right_kind_and_reach_every_pair():
    # With random rows the similarity of a pair tells which pair it is.
    z = reference.normalize(ROWS)
    s_n, s_p = pair_sampling.random_pairs(ROWS, IDS, count=40_000)
    pairs = {True: set(), False: set()}
    for i in range(40):
        for j in range(40):
            if i != j and np.sum(IDS == IDS[i]) > 1:
                pairs[bool(IDS[i] == IDS[j])].add(round(float(z[i] @ z[j]), 4))
    # Rounding may fall either way at the last digit.
    for found, expected in ((s_p, pairs[True]), (s_n, pairs[False])):
        found = {round(float(s), 4) for s in found}
        assert all(min(abs(f - e) for e in expected) < 2e-4 for f in found)
        assert all(min(abs(f - e) for f in found) < 2e-4 for e in expected)


@pytest.mark.parametrize("draw", BOTH)
def test_draws_depend_on_the_seed_alone(draw):
    first, again = (draw(ROWS, IDS, count=9, seed=1) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, draw(ROWS, IDS, count=9, seed=2))


@pytest.mark.parametrize("draw", BOTH)
@pytest.mark.parametrize("labels", [np.zeros(40, int), np.arange(40)])
def test_no_pairs(draw, labels):
    with pytest.raises(
        ValueError, match="Pairs need two classes, one of them with two rows; found"
    ):
        draw(ROWS, labels)


@pytest.mark.parametrize("draw", BOTH)
def test_lengths_differ(draw):
    with pytest.raises(ValueError, match=r"found shape \[40, 5\] and 3 labels"):
        draw(ROWS, [1, 1, 2])
