"""Rows drawn block by block: as many, as random and as repeatable as those drawn at once."""

import numpy as np
import pytest

from circle_tf.layers import initializers


@pytest.mark.parametrize("count", [7, 12, 13])
def test_blocks_fill_every_row_and_depend_on_the_seed_alone(count, monkeypatch):
    monkeypatch.setattr(initializers, "_BLOCK_BYTES", 4 * 4 * 64)
    rows = initializers.NormalRows(64, seed=3)((count, 64), dtype="float32").numpy()
    assert rows.shape == (count, 64) and len(np.unique(rows)) > 0.99 * rows.size
    assert abs(rows.std() - 1 / 8) < 0.01 and abs(rows.mean()) < 0.02
    again = initializers.NormalRows(64, seed=3)((count, 64), dtype="float32").numpy()
    np.testing.assert_array_equal(rows, again)
    other = initializers.NormalRows(64, seed=4)((count, 64), dtype="float32").numpy()
    assert not (rows == other).any()


def test_several_rows_of_a_class_are_those_of_as_many_classes(monkeypatch):
    monkeypatch.setattr(initializers, "_BLOCK_BYTES", 4 * 4 * 64)
    rows, flat = (
        initializers.NormalRows(64, seed=3)(shape, dtype="float32").numpy()
        for shape in ((7, 2, 64), (14, 64))
    )
    np.testing.assert_array_equal(rows.reshape(14, 64), flat)


def test_a_seed_is_drawn_where_none_is_given():
    one, other = (initializers.NormalRows(4)((5, 4), dtype="float32").numpy() for _ in range(2))
    assert not (one == other).any()
