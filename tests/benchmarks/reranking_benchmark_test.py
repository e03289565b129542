"""The benchmark of re-ranking runs, at a tiny size."""

import numpy as np

from benchmarks import reranking_benchmark


def test_it_measures():
    rows = reranking_benchmark.images(90, dim=4)
    assert rows.shape == (90, 4) and rows.dtype == np.float32
    seconds, processor, mib = reranking_benchmark.measure(rows, queries=20)
    assert seconds > 0 and processor > 0 and mib >= 0
