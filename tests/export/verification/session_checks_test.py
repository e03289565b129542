"""Each fault of a SavedModel is found by the check that looks for it."""

import re

import numpy as np
import pytest
import tensorflow as tf

from export.verification import session_checks
from tests import saved_models
from tests.saved_models import unit_pixels


def _failures(path, *, expected=unit_pixels):
    """What was seen, by name, of the checks that fail."""
    request = {"images": saved_models.IMAGES}
    for size in session_checks.BATCH_SIZES:
        request[f"expected_{size}"] = expected(saved_models.IMAGES[:size]).numpy()
    events = []
    session_checks.run(str(path), request, report=events.append)
    results = [event for event in events if "name" in event]
    assert len(events) == 2 * len(results)  # Each was announced before it ran.
    return {result["name"]: result["seen"] for result in results if not result["passed"]}


def _by_batch_mean(images):
    rows = tf.reshape(images, [-1, 64])
    return tf.math.l2_normalize(rows - tf.reduce_mean(rows, axis=0) / 2, axis=1)


def test_a_right_model_passes_all(tmp_path):
    path = saved_models.save_embedder(tmp_path / "1", unit_pixels)
    assert _failures(path) == {}


@pytest.mark.parametrize(
    ("embed", "check", "seen"),
    [
        (lambda x: unit_pixels(x) * 1.01, "embeddings", "not of length 1: 1.01 to 1.01"),
        (lambda x: unit_pixels(x) * np.nan, "embeddings", "not of length 1: nan"),
        (lambda x: unit_pixels(tf.reverse(x, [1])), "parity", r"allowed 1e-05"),
        (lambda x: unit_pixels(x)[:, :32], "parity", r"returns \(1, 64\), the session \(1, 32\)"),
        (_by_batch_mean, "batch mates", "changes by"),
        (lambda x: tf.cast(unit_pixels(x), tf.float64), "embeddings", r"float64 \(17, 64\)"),
    ],
    ids=["length", "nan", "other model", "dimension", "batch", "dtype"],
)
def test_wrong_embeddings(tmp_path, embed, check, seen):
    failures = _failures(saved_models.save_embedder(tmp_path / "1", embed))
    assert re.search(seen, failures[check])


def test_no_guard_for_empty_batches(tmp_path):
    path = saved_models.save_embedder(tmp_path / "1", unit_pixels, guard_empty=False)
    failures = _failures(path)
    assert failures == {
        "guard: empty batch": "float32 [0, 8, 8, 1] answered with embeddings [0, 64]"
    }


def test_no_guard_for_rank_and_size(tmp_path):
    path = saved_models.save_embedder(tmp_path / "1", unit_pixels, guard_shape=False)
    failures = _failures(path)
    assert failures["guard: wrong channels"] == (
        "float32 [17, 8, 8, 2] answered with embeddings [34, 64]"
    )
    assert "guard: rank 3" in failures and "guard: rank 5" in failures


def test_a_model_that_does_not_open(tmp_path):
    failures = _failures(tmp_path)
    assert list(failures) == ["opens"] and "SavedModel" in failures["opens"]
