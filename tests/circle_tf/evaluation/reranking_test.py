"""k-reciprocal re-ranking against the authors' dense procedure."""

import numpy as np
import pytest

from circle_tf.evaluation import reranking


def _dense(queries, gallery, *, k1, k2, weight):
    """The paper's steps on full matrices, written from its section 3."""
    rows = np.concatenate([queries, gallery])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    distances = 2 - 2 * rows @ rows.T
    distances = np.maximum(distances, 0) / distances.max(axis=1, keepdims=True)
    order = np.argsort(distances, axis=1, kind="stable")
    count = len(rows)

    def reciprocal(i, k):
        return [j for j in order[i, : k + 1] if i in order[j, : k + 1]]

    sets = np.zeros((count, count))
    for i in range(count):
        expanded = set(reciprocal(i, k1))
        for j in reciprocal(i, k1):
            theirs = reciprocal(j, round(k1 / 2))
            if len(set(theirs) & set(reciprocal(i, k1))) > 2 / 3 * len(theirs):
                expanded |= set(theirs)
        members = sorted(expanded)
        weights = np.exp(-distances[i, members])
        sets[i, members] = weights / weights.sum()
    sets = np.stack([sets[order[i, :k2]].mean(axis=0) for i in range(count)])
    first, second = sets[: len(queries), None], sets[None, len(queries) :]
    shared = np.minimum(first, second).sum(axis=2)
    jaccard = 1 - shared / (2 - shared)
    return (1 - weight) * jaccard + weight * distances[: len(queries), len(queries) :]


@pytest.mark.parametrize("options", [(20, 6, 0.3), (5, 1, 0.0), (7, 3, 0.5), (4, 4, 1.0)])
def test_equals_the_dense_procedure(options):
    k1, k2, weight = options
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, 6))
    rows = centres[np.arange(64) % 8] + 0.4 * random.normal(size=(64, 6))
    settings = {"k1": k1, "k2": k2, "weight": weight}
    found = reranking.k_reciprocal_distances(rows[:10], rows[10:], chunk_size=7, **settings)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _dense(rows[:10], rows[10:], **settings), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": 9}, r"k1 must be below Q \+ N = 9 and k2 at most k1; found k1=9, k2=2"),
        ({"k2": 5}, "found k1=4, k2=5"),
        ({"k2": 0}, "k2 must be a whole number of 1 or more; found 0"),
        ({"weight": 1.5}, "weight must be 0 to 1; found 1.5"),
        ({"gallery": np.ones((6, 3))}, "same dimension; found 4 and 3"),
    ],
)
def test_bad_input(options, message):
    rows = np.random.default_rng(0).normal(size=(9, 4))
    task = {"queries": rows[:3], "gallery": rows[3:], "k1": 4, "k2": 2, **options}
    with pytest.raises(ValueError, match=message):
        reranking.k_reciprocal_distances(**task)
