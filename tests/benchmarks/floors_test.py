"""The floors of losses are measured, at a tiny size."""

import pytest

from benchmarks import floors

SIZES = {
    "pair": {"rows": 8, "dim": 4},
    "memory": {"size": 16, "rows": 8, "dim": 4},
    "head": {"classes": 70, "rows": 8, "dim": 4},
}


@pytest.mark.parametrize("name", SIZES)
def test_each_function_has_its_times(name):
    times = floors.measure(getattr(floors, name), SIZES[name], rounds=2, seconds=0)
    assert {"ours", "products", "forward", "backward", "nothing"} <= set(times)
    assert all(found.shape == (2,) and (found > 0).all() for found in times.values())
