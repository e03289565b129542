"""Retrieval metrics against plain loops and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import sklearn.neighbors
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.evaluation import retrieval

METRICS = [
    retrieval.recall_at_k,
    retrieval.precision_at_1,
    retrieval.r_precision,
    retrieval.mean_average_precision_at_r,
]


def expected_report(queries, labels, gallery=None, gallery_labels=None, *, ks):
    """A plain double loop over similarities of float64 unit rows."""
    leave_one_out = gallery is None
    if leave_one_out:
        gallery, gallery_labels = queries, labels
    recalls, precisions, averages = {k: [] for k in ks}, [], []
    for q, row in enumerate(unit(queries) @ unit(gallery).T):
        order = [j for j in range(len(row)) if not (leave_one_out and j == q)]
        order.sort(key=lambda j: (-round(row[j], 12), j))
        relevant = [bool(gallery_labels[j] == labels[q]) for j in order]
        references = sum(relevant)
        if not references:
            continue
        for k in ks:
            recalls[k].append(any(relevant[:k]))
        precisions.append(sum(relevant[:references]) / references)
        hits = [sum(relevant[: i + 1]) / (i + 1) for i in range(references) if relevant[i]]
        averages.append(sum(hits) / references)
    return {
        **{f"recall_at_{k}": np.mean(found) for k, found in recalls.items()},
        "r_precision": np.mean(precisions),
        "mean_average_precision_at_r": np.mean(averages),
        "queries": len(precisions),
        "queries_without_match": len(queries) - len(precisions),
    }


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def assert_reports_equal(found, expected):
    assert found.pop("precision_at_1") == pytest.approx(expected["recall_at_1"])
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 32])
@pytest.mark.parametrize("with_gallery", [False, True])
def test_equals_a_plain_double_loop(chunk_size, with_gallery):
    rng = np.random.default_rng(2)
    data = [rng.normal(size=(90, 5)), rng.integers(0, 12, 90)]
    if with_gallery:
        data += [rng.normal(size=(70, 5)), rng.integers(3, 15, 70)]
    keys = dict(zip(("gallery", "gallery_labels"), data[2:], strict=False))
    found = retrieval.retrieval_report(*data[:2], **keys, ks=(1, 2, 8, 60), chunk_size=chunk_size)
    assert_reports_equal(found, expected_report(*data, ks=(1, 2, 8, 60)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_a_plain_double_loop_under_ties(data):
    # Signs in 4 or 16 dimensions: few distinct similarities, each exact in binary.
    dim = data.draw(st.sampled_from([1, 4, 16]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = data.draw(st.integers(3, 40))
    queries = rng.choice([-1.0, 1.0], (rows, dim))
    labels = rng.integers(0, data.draw(st.integers(1, rows - 1)), rows)
    labels[0] = labels[1]
    chunk_size = data.draw(st.integers(1, rows))
    found = retrieval.retrieval_report(queries, labels, ks=(1, 2), chunk_size=chunk_size)
    assert_reports_equal(found, expected_report(queries, labels, ks=(1, 2)))


def test_map_at_r_of_full_lists_is_the_average_precision_of_scikit_learn():
    # Where the R nearest are the whole class, average precision does not look past them.
    rng = np.random.default_rng(3)
    for _ in range(5):
        gallery = rng.normal(size=(40, 3))
        query = rng.normal(size=(1, 3))
        similarities = (unit(query) @ unit(gallery).T)[0]
        relevant = (similarities > np.sort(similarities)[-9]).astype(int)
        kwargs = {"gallery": gallery, "gallery_labels": relevant}
        found = retrieval.mean_average_precision_at_r(query, [1], **kwargs)
        assert found == sklearn.metrics.average_precision_score(relevant, similarities) == 1.0


def test_map_at_r_is_scikit_learns_average_precision_of_the_list_cut_at_r():
    rng = np.random.default_rng(4)
    gallery, ids = rng.normal(size=(200, 4)), rng.integers(0, 5, 200)
    queries, labels = rng.normal(size=(30, 4)), rng.integers(0, 5, 30)
    expected = []
    for query, label in zip(unit(queries), labels, strict=True):
        similarities = unit(gallery) @ query
        references = np.sum(ids == label)
        nearest = np.argsort(-similarities)[:references]
        hits = ids[nearest] == label
        # scikit-learn divides by the hits in the list, MAP@R by all references.
        average = sklearn.metrics.average_precision_score(hits, similarities[nearest])
        expected.append(average * hits.sum() / references)
    found = retrieval.mean_average_precision_at_r(
        queries, labels, gallery=gallery, gallery_labels=ids
    )
    assert found == pytest.approx(np.mean(expected), rel=1e-9)


def test_recall_at_1_is_the_accuracy_of_a_nearest_neighbour_classifier():
    rng = np.random.default_rng(5)
    gallery, ids = rng.normal(size=(100, 4)), rng.integers(0, 5, 100)
    queries, labels = rng.normal(size=(60, 4)), rng.integers(0, 5, 60)
    classifier = sklearn.neighbors.KNeighborsClassifier(1, metric="cosine").fit(gallery, ids)
    kwargs = {"gallery": gallery, "gallery_labels": ids}
    assert retrieval.precision_at_1(queries, labels, **kwargs) == pytest.approx(
        classifier.score(queries, labels)
    )


def test_single_metrics_are_those_of_the_report():
    rng = np.random.default_rng(6)
    embeddings, labels = rng.normal(size=(50, 4)), rng.integers(0, 20, 50)
    report = retrieval.retrieval_report(embeddings, labels, ks=(1, 5))
    assert retrieval.recall_at_k(embeddings, labels) == report["recall_at_1"]
    assert retrieval.recall_at_k(embeddings, labels, 5) == report["recall_at_5"]
    for metric in METRICS[1:]:
        value = metric(embeddings, labels)
        assert type(value) is float
        assert value == report[metric.__name__]


def test_the_chunk_size_does_not_change_a_bit():
    rng = np.random.default_rng(7)
    embeddings = rng.normal(size=(40, 24)).astype(np.float32)[rng.integers(0, 40, 203)]
    labels = rng.integers(0, 9, 203)
    reports = [
        retrieval.retrieval_report(embeddings, labels, ks=(1, 9), chunk_size=size)
        for size in (1, 3, 50, 100, 203, None)
    ]
    assert all(report == reports[0] for report in reports)


def test_collapsed_embeddings_score_as_their_order_says():
    # All rows tie: lists are 0, 1, 2, ... Row 0 finds its class last, row 3 first.
    report = retrieval.retrieval_report(np.ones([4, 3]), [5, 6, 6, 5], ks=(1, 2, 3))
    assert [report[f"recall_at_{k}"] for k in (1, 2, 3)] == [0.25, 0.75, 1.0]


WIDE = np.array([2**24, 2**24 + 1, 2**31 + 1, 2**62, 2**62 + 1])


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_wide_labels_stay_exact(shape):
    rng = np.random.default_rng(8)
    embeddings, small = rng.normal(size=(40, 3)), rng.integers(0, 5, 40)
    expected = retrieval.retrieval_report(embeddings, small)
    assert retrieval.retrieval_report(embeddings, WIDE[small].reshape(shape)) == expected
    gallery, others = rng.normal(size=(30, 3)), rng.integers(0, 5, 30)
    kwargs = {"gallery": gallery, "gallery_labels": WIDE[others].reshape(shape)}
    found = retrieval.retrieval_report(tf.constant(embeddings), tf.constant(WIDE[small]), **kwargs)
    kwargs["gallery_labels"] = others
    assert found == retrieval.retrieval_report(embeddings, small, **kwargs)


def test_queries_without_a_reference_are_left_out_and_counted():
    gallery, ids = np.eye(3), [1, 2, 1]
    report = retrieval.retrieval_report(
        [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]], [1, 9, -1], gallery=gallery, gallery_labels=ids
    )
    assert (report["queries"], report["queries_without_match"]) == (1, 2)
    assert report["recall_at_1"] == 1.0


def test_one_large_class_beside_small_ones():
    rng = np.random.default_rng(9)
    embeddings = rng.normal(size=(160, 4))
    labels = np.concatenate([np.zeros(100, int), np.arange(60) // 2 + 1])[rng.permutation(160)]
    found = retrieval.retrieval_report(embeddings, labels, chunk_size=16)
    assert_reports_equal(found, expected_report(embeddings, labels, ks=(1,)))


@pytest.mark.parametrize("metric", [*METRICS, retrieval.retrieval_report])
class TestBadInput:
    def test_no_match_in_leave_one_out(self, metric):
        with pytest.raises(
            ValueError, match="No query has a match: each of the 3 rows is the only"
        ):
            metric(np.eye(3), [1, 2, 3])

    def test_no_match_in_the_gallery(self, metric):
        with pytest.raises(ValueError, match=r"no class in common.*\[1, 2, 3\].*\[4, 5, 6\]"):
            metric(np.eye(3), [1, 2, 3], gallery=np.eye(3), gallery_labels=[4, 5, 6])

    def test_lengths_differ(self, metric):
        with pytest.raises(ValueError, match="labels must hold one id per row: 3 rows, 2 ids"):
            metric(np.eye(3), [1, 1])
        with pytest.raises(ValueError, match="gallery_labels must hold one id per row"):
            metric(np.eye(3), [1, 1, 2], gallery=np.eye(3), gallery_labels=[1])

    def test_gallery_without_labels(self, metric):
        with pytest.raises(ValueError, match="gallery and gallery_labels must be given together"):
            metric(np.eye(3), [1, 1, 2], gallery=np.eye(3))
        with pytest.raises(ValueError, match="gallery and gallery_labels must be given together"):
            metric(np.eye(3), [1, 1, 2], gallery_labels=[1, 1, 1])

    def test_nan_row_is_named(self, metric):
        rows = np.ones([5, 2])
        rows[3, 0] = np.nan
        with pytest.raises(ValueError, match="row 3 holds NaN"):
            metric(rows, [1, 1, 1, 2, 2])

    def test_string_labels(self, metric):
        with pytest.raises(TypeError, match="found strings"):
            metric(np.eye(2), ["a", "a"])


@pytest.mark.parametrize("k", [0, 3, 1.5, "1"])
def test_k_out_of_range(k):
    message = f"k must be a whole number from 1 to 2, .*; found {k}"
    with pytest.raises(ValueError, match=message):
        retrieval.recall_at_k(np.eye(3), [1, 1, 1], k)
    with pytest.raises(ValueError, match=message):
        retrieval.retrieval_report(np.eye(3), [1, 1, 1], ks=(1, k))


def test_several_k_are_for_the_report():
    embeddings, labels = np.eye(3), [1, 1, 1]
    message = r"k must be one number; found \[1, 2\]. For several: retrieval_report"
    with pytest.raises(ValueError, match=message):
        retrieval.recall_at_k(embeddings, labels, [1, 2])
    one = retrieval.retrieval_report(embeddings, labels, ks=2)
    assert one == retrieval.retrieval_report(embeddings, labels, ks=[2])
    with pytest.raises(ValueError, match=r"k must be a whole number .*; found \[1, 2\]"):
        retrieval.retrieval_report(embeddings, labels, ks=[[1, 2]])
