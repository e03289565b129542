"""Time and memory of `retrieval_report` beside a bare float32 matmul and top_k.

    python -m benchmarks.retrieval_benchmark --rows=60000 --dim=512

The bare loop is the least any exact search must do (same chunks, k = 1, leave-one-out by value); it
returns neighbours that may change with the chunk size. Memory is the growth of the process'
peak over what it held with TensorFlow and the embeddings loaded; the embeddings are shown apart.
"""

import resource
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks.data import noisy_classes
from circle_tf import retrieval

_ROWS = flags.DEFINE_integer("rows", 10_000, "Embeddings N.", lower_bound=2)
_DIM = flags.DEFINE_integer("dim", 512, "Numbers per embedding D.", lower_bound=1)
_PER_CLASS = flags.DEFINE_integer("per_class", 5, "Rows of each class.", lower_bound=2)
_KS = flags.DEFINE_multi_integer("k", [1, 10], "k of recall_at_k.")
_CHUNK = flags.DEFINE_integer("chunk_size", None, "Queries at a time; default: by memory.")
_BARE = flags.DEFINE_bool("bare", True, "Time the bare loop too (after the report).")


def bare_search(embeddings, *, k, chunk_size):
    """Nearest rows `[N, k]` by float32 matmul and top_k of unit rows, nothing checked."""
    keys = tf.math.l2_normalize(tf.constant(embeddings), axis=1)
    search = tf.function(lambda part: tf.math.top_k(tf.matmul(part, keys, transpose_b=True), k + 1))
    parts = range(0, len(embeddings), chunk_size)
    found = [search(keys[start : start + chunk_size]).indices.numpy() for start in parts]
    return np.concatenate(found)[:, 1:]


def _timed(function):
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(_):
    """Prints one table."""
    rows, dim = _ROWS.value, _DIM.value
    embeddings, labels = noisy_classes(rows=rows, dim=dim, per_class=_PER_CLASS.value)
    # Starts the threads and libraries of the first use, which are no part of the search.
    retrieval.retrieval_report(embeddings[:64], labels[:64])
    before = _peak_mib()
    report, seconds = _timed(
        lambda: retrieval.retrieval_report(
            embeddings, labels, ks=_KS.value, chunk_size=_CHUNK.value
        )
    )
    growth = _peak_mib() - before
    print(f"N x D                  {rows} x {dim} float32, {embeddings.nbytes / 2**20:.0f} MiB")
    print(f"retrieval_report       {seconds:.1f} s, peak growth {growth:.0f} MiB")
    if _BARE.value:
        chunk = _CHUNK.value or max(1, 2**28 // (4 * rows))
        _, bare = _timed(lambda: bare_search(embeddings, k=max(_KS.value), chunk_size=chunk))
        print(f"bare matmul + top_k    {bare:.1f} s, ratio {seconds / bare:.2f}")
    for name, value in report.items():
        print(f"{name:<30} {value:.4g}")


if __name__ == "__main__":
    app.run(main)
