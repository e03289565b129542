"""Re-identification against plain loops and scikit-learn, with ties, junk and cameras."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from circle_tf.evaluation import reidentification
from circle_tf.evaluation.reidentification import average_precision, cmc, reidentification_report


def _task(seed, *, ties=False):
    random = np.random.default_rng(seed)
    gallery = random.normal(size=(60, 5))
    queries = random.normal(size=(12, 5))
    if ties:  # Few directions, many equal cosines.
        gallery, queries = np.sign(gallery) * (np.arange(5) < 2), np.sign(queries)
        gallery[:, 0] += gallery[:, 0] == 0
    return {
        "queries": queries,
        "query_ids": random.integers(1, 6, 12),
        "gallery": gallery,
        "gallery_ids": random.integers(-1, 6, 60),
        "query_cameras": random.integers(1, 4, 12),
        "gallery_cameras": random.integers(1, 4, 60),
    }


def _oracle(task):
    """Hits and misses in order, one list a query, by plain loops over a sort."""
    lists = []
    for row, query in enumerate(task["queries"]):
        entries = []
        for at, key in enumerate(task["gallery"]):
            same = task["gallery_ids"][at] == task["query_ids"][row]
            seen = task["gallery_cameras"][at] == task["query_cameras"][row]
            if task["gallery_ids"][at] == -1 or (same and seen):
                continue
            cosine = query @ key / np.linalg.norm(query) / np.linalg.norm(key)
            entries.append((-round(cosine, 6), at, bool(same)))
        lists.append([same for _, _, same in sorted(entries)])
    return lists


def _trapezoid(hits):
    """The script of the data set, step by step."""
    good, old_recall, old_precision, area, found = sum(hits), 0.0, 1.0, 0.0, 0
    for n, hit in enumerate(hits):
        found += hit
        recall, precision = found / good, found / (n + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
    return area


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("chunk_size", [None, 5])
def test_all_metrics_are_those_of_plain_loops(seed, ties, chunk_size):
    task = _task(seed, ties=ties)
    lists = [hits for hits in _oracle(task) if any(hits)]
    report = reidentification_report(**task, ks=(1, 3, 60), chunk_size=chunk_size)
    for k in (1, 3, 60):
        assert report[f"cmc_at_{k}"] == pytest.approx(np.mean([any(h[:k]) for h in lists]))
        assert cmc(**task, k=k) == report[f"cmc_at_{k}"]
    rectangular = [
        np.mean([sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit])
        for hits in lists
    ]
    assert report["map_rectangular"] == pytest.approx(np.mean(rectangular))
    assert report["map_trapezoid"] == pytest.approx(np.mean([_trapezoid(h) for h in lists]))
    minp = [sum(h) / (max(n for n, hit in enumerate(h) if hit) + 1) for h in lists]
    assert report["minp"] == pytest.approx(np.mean(minp))
    assert report["queries"] == len(lists)
    assert report["queries_without_match"] == 12 - len(lists)


def test_rectangular_is_scikit_learns():
    hits = np.random.default_rng(0).random(50) < 0.2
    expected = sklearn_metrics.average_precision_score(hits, -np.arange(50.0))
    assert average_precision(np.flatnonzero(hits) + 1) == pytest.approx(expected)


def test_the_two_averages_on_hits_at_1_2_4_7():
    assert average_precision([1, 2, 4, 7]) == pytest.approx(0.8304, abs=5e-5)
    assert average_precision([1, 2, 4, 7], kind="trapezoid") == pytest.approx(0.8110, abs=5e-5)


def test_distractors_are_negatives_and_junk_is_not_there():
    gallery, query = [[1.0, 0.0], [1.0, 0.1], [1.0, 0.2]], [[1.0, 0.0]]
    report = reidentification_report(query, [7], gallery, [0, -1, 7], ks=(1, 2))
    assert (report["cmc_at_1"], report["cmc_at_2"], report["map_rectangular"]) == (0, 1, 0.5)


def test_without_cameras_nothing_is_left_out():
    task = _task(0)
    task["query_cameras"] = task["gallery_cameras"] = None
    ranks = reidentification.ranks_of_matches(**task)
    expected = [np.sum(task["gallery_ids"] == name) for name in task["query_ids"]]
    assert [len(found) for found in ranks] == expected


def test_distances_take_the_place_of_cosines():
    task = _task(1)
    distances = np.random.default_rng(5).random((12, 60))
    found = reidentification.ranks_of_matches(**task, distances=distances)
    for row, ranks in enumerate(found):
        same = task["gallery_ids"] == task["query_ids"][row]
        seen = task["gallery_cameras"] == task["query_cameras"][row]
        kept = np.flatnonzero((task["gallery_ids"] != -1) & ~(same & seen))
        ordered = kept[np.argsort(distances[row, kept])]
        assert ranks.tolist() == (np.flatnonzero(same[ordered]) + 1).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery": np.ones((60, 4))}, "must have the same dimension; found 5 and 4"),
        ({"query_ids": [1]}, "query_ids must hold one id per row: 12 rows, 1 ids"),
        ({"gallery_cameras": None}, "must be given together, or neither"),
        ({"query_ids": [-1] * 12}, "Query 0 is junk"),
        ({"gallery_ids": [99] * 60}, "No query has a match: no identity of a query"),
        ({"queries": np.full((12, 5), np.nan)}, "queries must be finite; row 0"),
        ({"distances": np.ones((12, 1))}, r"shape \[Q, N\] = \[12, 60\]; found \[12, 1\]"),
        ({"distances": np.full((12, 60), np.inf)}, "distances must be finite"),
        ({"ks": (0,)}, "k must be a whole number of 1 or more; found 0"),
        ({"chunk_size": 0}, "chunk_size must be a whole number of 1 or more"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        reidentification_report(**{**_task(0), **change})


def test_bad_ranks():
    with pytest.raises(ValueError, match="kind must be 'rectangular' or 'trapezoid'; found 'x'"):
        average_precision([1], kind="x")
    for function in (average_precision, reidentification.inverse_negative_penalty):
        with pytest.raises(ValueError, match="ranks is empty"):
            function([])


def test_one_k_needs_no_list_and_cmc_takes_one():
    task = _task(0)
    assert reidentification_report(**task, ks=5) == reidentification_report(**task, ks=[5])
    with pytest.raises(ValueError, match=r"k must be one number; found \[1, 5\]. For several: rei"):
        reidentification.cmc(**task, k=[1, 5])
