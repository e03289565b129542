"""Short lists and all rows must find the same, and both what whole numbers say."""

import numpy as np
import pytest

from circle_tf.evaluation import exact_search, shortlists
from tests.combinations import diagonal

ROWS, QUERIES, DEPTH = 3000, 150, 11


def oracle(anchors, keys, *, depth, left_out):
    """Products of whole numbers, sorted by value, then by row."""
    whole = [(rows * 2**26).astype(np.int64) for rows in (anchors, keys)]
    products = whole[0] @ whole[1].T
    lists = []
    for query, row in enumerate(products.tolist()):
        found = [j for j in range(len(row)) if left_out is None or j != left_out[query]]
        lists.append(sorted(found, key=lambda j: (-row[j], j))[:depth])
    return np.array(lists)


def random(rng, dim):
    return rng.normal(size=(ROWS, dim))


def copies(rng, dim):
    """Every row three times or more: more ties than a short list can hold for some queries."""
    return rng.normal(size=(ROWS // 3, dim))[rng.integers(0, ROWS // 3, ROWS)]


def near_copies(rng, dim):
    """Closer than float32 can tell apart, further than the grid."""
    return copies(rng, dim) + 3e-8 * rng.normal(size=(ROWS, dim))


def near_crowds(rng, dim):
    """The same, and more of them than a short list can hold."""
    crowd = rng.normal(size=(ROWS // 30, dim))[rng.integers(0, ROWS // 30, ROWS)]
    return crowd + 3e-8 * rng.normal(size=(ROWS, dim))


def all_one_way(rng, dim):
    """As of an untrained network: all cosines are above 0.999."""
    return 1 + 1e-2 * rng.normal(size=(ROWS, dim))


def signs(rng, dim):
    """Few distinct similarities: ties in their hundreds."""
    return rng.choice([-1.0, 1.0], (ROWS, dim))


def with_zeros(rng, dim):
    rows = random(rng, dim)
    rows[rng.integers(0, ROWS, ROWS // 2)] = 0
    return rows


def collapsed(rng, dim):
    return np.ones([ROWS, dim])


EMBEDDINGS = [random, copies, near_copies, near_crowds, all_one_way, signs, with_zeros, collapsed]


@pytest.mark.parametrize(
    ("dim", "leave_one_out", "embeddings"), diagonal([2, 16, 100], [True, False], EMBEDDINGS)
)
def test_equals_whole_numbers(embeddings, dim, leave_one_out):
    rng = np.random.default_rng(dim)
    keys = exact_search.on_grid(embeddings(rng, dim), name="gallery")
    chosen = rng.permutation(ROWS)[:QUERIES]
    left_out = chosen if leave_one_out else None
    search = exact_search.ExactSearch(keys)
    expected = oracle(keys[chosen], keys, depth=DEPTH, left_out=left_out)
    for _ in range(2):  # Where lists were no gain, the second search does without.
        indices, similarities = search(keys[chosen], DEPTH, left_out=left_out)
        np.testing.assert_array_equal(indices, expected)
        exact = np.einsum("qd,qkd->qk", keys[chosen], keys[indices])
        np.testing.assert_array_equal(similarities, np.clip(exact, -1, 1))


def test_float32_alone_would_be_wrong():
    """Or the test above would prove little."""
    keys = exact_search.on_grid(near_copies(np.random.default_rng(0), 16), name="gallery")
    singles = keys.astype(np.float32)
    order = np.argsort(-(singles[:QUERIES] @ singles.T), axis=1, kind="stable")[:, :DEPTH]
    expected = oracle(keys[:QUERIES], keys, depth=DEPTH, left_out=None)
    assert (order != expected).any(axis=1).mean() > 0.3


@pytest.mark.parametrize("embeddings", [random, near_copies, all_one_way])
def test_short_lists_suffice_where_rows_differ(embeddings):
    keys = exact_search.on_grid(embeddings(np.random.default_rng(1), 100), name="gallery")
    left_out = np.arange(QUERIES)
    candidates, complete = shortlists.Shortlists(keys)(keys[:QUERIES], DEPTH, left_out=left_out)
    assert complete.mean() > 0.95
    assert candidates.shape[1] < 3 * DEPTH
    assert (np.diff(candidates, axis=1) > 0).all()
    assert not (candidates == left_out[:, None]).any()


def test_a_complete_list_holds_the_nearest_and_a_long_tie_is_not_complete():
    rng = np.random.default_rng(2)
    keys = exact_search.on_grid(copies(rng, 16), name="gallery")
    keys[:40] = keys[0]
    candidates, complete = shortlists.Shortlists(keys)(keys[:QUERIES], DEPTH)
    assert not complete[:40].any() and complete[40:].mean() > 0.9
    expected = oracle(keys[:QUERIES], keys, depth=DEPTH, left_out=None)
    for query in np.flatnonzero(complete):
        assert set(expected[query]) <= set(candidates[query])


@pytest.mark.parametrize("dim", [1, 7, 512, 4096])
def test_no_rounding_of_a_short_list_loses_a_neighbour(dim):
    """Same signs throughout, where the errors of a float32 sum add up."""
    keys = exact_search.on_grid(np.random.default_rng(3).uniform(size=(1100, dim)), name="gallery")
    indices, _ = exact_search.ExactSearch(keys)(keys[:50], 8)
    expected = oracle(keys[:50], keys, depth=8, left_out=None)
    np.testing.assert_array_equal(indices, expected)


def test_no_lists_where_they_are_no_gain():
    assert [shortlists.deepest(rows) for rows in (1, 1023, 1024, 60_000)] == [0, 0, 8, 468]
