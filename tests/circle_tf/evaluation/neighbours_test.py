"""Neighbour lists against exact integer arithmetic, scikit-learn and adversarial ties."""

import fractions

import numpy as np
import pytest
import sklearn.neighbors
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.evaluation import exact_search, neighbours


def signs(rng, shape):
    return rng.choice([-1.0, 1.0], shape).astype(np.float32)


def sorted_neighbours(similarities, *, leave_one_out):
    """Plain-loop oracle: all gallery rows by falling similarity, then by row."""
    lists = []
    for query, row in enumerate(similarities):
        found = [j for j in range(len(row)) if not (leave_one_out and j == query)]
        lists.append(sorted(found, key=lambda j: (-row[j], j)))
    return lists


def exact_ordering(queries, gallery):
    """Of integer rows: fractions that order a query's list as its cosines do, without rounding."""
    order = []
    for query in queries.astype(int).tolist():
        row = []
        for key in gallery.astype(int).tolist():
            dot = sum(a * b for a, b in zip(query, key, strict=True))
            square = sum(b * b for b in key)
            row.append(fractions.Fraction(dot * abs(dot), square) if square else 0)
        order.append(row)
    return order


@pytest.mark.parametrize("gallery_rows", [None, 57])
def test_equals_scikit_learn_on_random_rows(gallery_rows):
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(83, 9)).astype(np.float32)
    gallery = None if gallery_rows is None else rng.normal(size=(gallery_rows, 9))
    finder = sklearn.neighbors.NearestNeighbors(n_neighbors=11, metric="cosine")
    finder.fit(queries if gallery is None else gallery)
    # Without rows, scikit-learn leaves each row out of its own list.
    distances, expected = finder.kneighbors(None if gallery is None else queries)
    indices, similarities = neighbours.nearest_neighbours(queries, 11, gallery=gallery)
    assert indices.dtype == np.int64 and similarities.dtype == np.float32
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(similarities, 1 - distances, atol=1e-6)


# Rows with a power of 4 for a square length: their cosines are whole multiples of the grid step,
# so ties that are true of the integers must be ties of the floats.
@pytest.mark.parametrize("dim", [1, 4, 16, 64, 256])
@pytest.mark.parametrize("chunk_size", [1, 7, 64, None])
@pytest.mark.parametrize("leave_one_out", [True, False])
def test_ties_go_to_the_lower_row(dim, chunk_size, leave_one_out):
    rng = np.random.default_rng(dim)
    queries = signs(rng, (45, dim))
    gallery = queries if leave_one_out else signs(rng, (52, dim))
    expected = sorted_neighbours(exact_ordering(queries, gallery), leave_one_out=leave_one_out)
    indices, _ = neighbours.nearest_neighbours(
        queries,
        len(expected[0]),
        gallery=None if leave_one_out else gallery,
        chunk_size=chunk_size,
    )
    np.testing.assert_array_equal(indices, expected)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_small_integer_rows_in_any_chunks(data):
    dim = data.draw(st.integers(1, 5))
    row = st.lists(st.integers(-2, 2), min_size=dim, max_size=dim)
    queries = np.array(data.draw(st.lists(row, min_size=2, max_size=12)), float)
    # Equal rows must tie; different rows of one direction (1,1 and 2,2) normalise alike here too.
    chunk_size = data.draw(st.integers(1, 13))
    k = data.draw(st.integers(1, len(queries) - 1))
    indices, similarities = neighbours.nearest_neighbours(queries, k, chunk_size=chunk_size)
    whole, _ = neighbours.nearest_neighbours(queries, k)
    np.testing.assert_array_equal(indices, whole)
    assert not (indices == np.arange(len(queries))[:, None]).any()
    for found, values in zip(indices.tolist(), similarities, strict=True):
        assert len(set(found)) == k
        assert (np.diff(values) <= 0).all()
    for query, found in enumerate(indices.tolist()):
        copies = [j for j in found if (queries[j] == queries[found[0]]).all() and j != query]
        assert copies == sorted(copies)


def test_copies_tie_exactly_wherever_they_stand():
    rng = np.random.default_rng(1)
    originals = rng.normal(size=(3, 33)).astype(np.float32)
    rows = rng.integers(0, 3, 6007)
    embeddings = originals[rows]  # Spans normalisation blocks; every list is one long tie.
    indices, similarities = neighbours.nearest_neighbours(embeddings[:50], 6007, gallery=embeddings)
    for query in range(50):
        for original in range(3):
            found = indices[query][rows[indices[query]] == original]
            assert (np.diff(found) > 0).all()
        assert len(set(similarities[query])) == 3


@pytest.mark.parametrize("dim", [2, 3, 65, 200])
def test_lists_do_not_depend_on_the_chunk(dim):
    rng = np.random.default_rng(dim)
    embeddings = rng.normal(size=(40, dim)).astype(np.float32)[rng.integers(0, 40, 301)]
    expected = neighbours.nearest_neighbours(embeddings, 300)
    for chunk_size in (1, 2, 7, 64, 100, 300, 1000):
        found = neighbours.nearest_neighbours(embeddings, 300, chunk_size=chunk_size)
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_the_device_search_finds_the_same(monkeypatch):
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(40, 24)).astype(np.float32)[rng.integers(0, 40, 203)]
    expected = neighbours.nearest_neighbours(embeddings, 150)
    monkeypatch.setattr(exact_search, "_on_device", tf.constant)
    found = neighbours.nearest_neighbours(embeddings, 150, chunk_size=50)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_row_is_left_out_by_its_index_not_by_its_value():
    indices, similarities = neighbours.nearest_neighbours(np.ones([3, 2]), 2)
    assert indices.tolist() == [[1, 2], [0, 2], [0, 1]]
    np.testing.assert_array_equal(similarities, 1.0)


def test_scale_does_not_matter_and_zero_rows_are_far_from_all():
    gallery = np.array([[3e25, 0.0], [0.0, 0.0], [2e-25, 2e-25], [-1.0, 0.0]], np.float32)
    indices, similarities = neighbours.nearest_neighbours([[1.0, 0.0]], 4, gallery=gallery)
    assert indices.tolist() == [[0, 2, 1, 3]]
    np.testing.assert_allclose(similarities, [[1.0, 0.5**0.5, 0.0, -1.0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.int32])
def test_arrays_and_tensors_of_any_dtype(dtype):
    rows = tf.constant([[4, 0], [3, 1], [0, 5]], dtype)
    for embeddings in (rows, rows.numpy()):
        assert neighbours.nearest_neighbours(embeddings)[0].tolist() == [[1], [0], [1]]


def test_only_the_queries_asked_for_as_deep_as_asked_for():
    queries = neighbours.as_rows(np.eye(6), name="embeddings")
    chunks = list(neighbours.iterate_neighbours(queries, [5, 2, 0], [1, 1, 3], chunk_size=2))
    assert [rows.tolist() for rows, _, _ in chunks] == [[5, 2], [0]]
    assert [indices.shape for _, indices, _ in chunks] == [(2, 1), (1, 3)]


def test_default_chunks_shrink_with_gallery_and_depth():
    """So that a chunk's similarities stay within 256 MiB."""

    def first_chunk(*, gallery_rows, depth):
        queries, gallery = np.ones([4000, 1]), np.ones([gallery_rows, 1])
        depths = np.full(len(queries), depth)
        every = np.arange(len(queries))
        chunks = neighbours.iterate_neighbours(queries, every, depths, gallery=gallery)
        return len(next(iter(chunks))[0])

    small, large = (first_chunk(gallery_rows=rows, depth=1) for rows in (2_000, 200_000))
    assert large < small and large * 200_000 * 8 <= 2**28
    assert first_chunk(gallery_rows=200_000, depth=50_000) < large


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_bad_row_is_named(value):
    rows = np.ones([9000, 2], np.float32)
    rows[8123] = 0, value
    with pytest.raises(ValueError, match="embeddings must be finite; row 8123 holds NaN or inf"):
        neighbours.nearest_neighbours(rows)
    with pytest.raises(ValueError, match="gallery must be finite; row 8123"):
        neighbours.nearest_neighbours(np.ones([2, 2]), gallery=rows)
    with pytest.raises(ValueError, match="embeddings must be finite; row 8123"):
        neighbours.nearest_neighbours(rows, gallery=np.ones([2, 2]), chunk_size=999)


@pytest.mark.parametrize(
    ("k", "gallery", "message"),
    [
        (
            0,
            None,
            "k must be a whole number from 1 to 3, the number of gallery rows besides .*; found 0",
        ),
        (
            4,
            None,
            "k must be a whole number from 1 to 3, the number of gallery rows besides .*; found 4",
        ),
        (3, np.eye(2), "k must be a whole number from 1 to 2, the number of gallery rows; found 3"),
    ],
)
def test_k_out_of_range(k, gallery, message):
    with pytest.raises(ValueError, match=message):
        neighbours.nearest_neighbours(np.ones([4, 2]), k, gallery=gallery)


@pytest.mark.parametrize("rows", [np.ones(3), np.ones([0, 3]), np.ones([3, 0]), np.ones([2, 2, 2])])
def test_bad_shapes(rows):
    with pytest.raises(ValueError, match=r"embeddings must have shape \[N, D\].*found shape \["):
        neighbours.nearest_neighbours(rows)
    with pytest.raises(ValueError, match=r"gallery must have shape \[N, D\]"):
        neighbours.nearest_neighbours(np.ones([2, 2]), gallery=rows)


def test_dimensions_that_differ():
    with pytest.raises(ValueError, match="same dimension; found 3 and 2"):
        neighbours.nearest_neighbours(np.ones([4, 3]), gallery=np.ones([4, 2]))


def test_bad_chunk_size():
    with pytest.raises(ValueError, match="chunk_size must be a whole number of 1 or more; found 0"):
        neighbours.nearest_neighbours(np.eye(3), chunk_size=0)
