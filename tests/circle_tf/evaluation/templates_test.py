"""Templates against plain loops."""

import numpy as np
import pytest

from circle_tf.evaluation import templates, verification


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_media_are_averaged_then_added():
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 6)) * random.uniform(0.1, 10, (40, 1))
    of, media = random.integers(100, 105, 40), random.integers(0, 4, 40)
    ids, found = templates.template_embeddings(rows, of, media)
    assert ids.tolist() == sorted(set(of)) and found.dtype == np.float32
    for name, row in zip(ids, found, strict=True):
        total = sum(
            _unit(rows[(of == name) & (media == medium)]).mean(axis=0)
            for medium in set(media[of == name])
        )
        np.testing.assert_allclose(row, _unit(total), atol=1e-6)


def test_a_long_video_does_not_outvote_a_photograph():
    rows = np.array([[1.0, 0]] + [[0.0, 1]] * 99)
    _, found = templates.template_embeddings(rows, [1] * 100, [0] + [1] * 99)
    np.testing.assert_allclose(found, [[np.sqrt(0.5)] * 2], atol=1e-6)


def test_report_is_that_of_the_pairs(monkeypatch):
    monkeypatch.setattr(templates, "_CHUNK", 7)
    random = np.random.default_rng(0)
    ids, rows = np.arange(3, 103), random.normal(size=(100, 6))
    first, second = ids[random.permutation(100).reshape(2, 50)]
    same = random.random(50) < 0.5
    report = templates.template_report(ids, rows, first, second, same, fars=(0.1, 0.3))
    at = [np.searchsorted(ids, side) for side in (first, second)]
    scores = np.sum(_unit(rows)[at[0]] * _unit(rows)[at[1]], axis=1).round(6)
    for far in (0.1, 0.3):
        assert report[f"tar_at_far_{far}"] == verification.tar_at_far(scores, same, far)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: templates.template_embeddings(np.eye(2), [1], [1, 2]), "templates must hold one"),
        (lambda: templates.template_embeddings(np.eye(2), [1, 2], [1]), "media must hold one id"),
        (
            lambda: templates.template_report([1, 2], np.eye(2), [1, 3], [1, 2], [True, False]),
            r"first\[1\] is 3, of which there is no template \(1 such\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
