"""Time of `retrieval_report` beside a bare product and top-k, and pytorch-metric-learning.

    python -m benchmarks.retrieval_benchmark --rows=60000 --dim=512
    python -m benchmarks.retrieval_benchmark --rows=60000 --dim=512 --queries=4000 --rounds=5

Without --queries it is leave-one-out: all rows are queries. The bare loop is the least any exact
search must do (float32, nothing checked); it returns neighbours that may change with the chunk
size. Memory is the growth of the process' peak over what it held with TensorFlow and the embeddings
loaded; the embeddings are shown apart. Peers need `make bench-peers`; --nopeers leaves them out.
"""

import contextlib
import resource

import numpy as np
from absl import app, flags

from benchmarks import peers, steps, timing
from benchmarks.data import noisy_classes
from circle_tf.evaluation import retrieval

_ROWS = flags.DEFINE_integer("rows", 10_000, "Gallery embeddings N.", lower_bound=2)
_DIM = flags.DEFINE_integer("dim", 512, "Numbers per embedding D.", lower_bound=1)
_QUERIES = flags.DEFINE_integer("queries", None, "Queries apart from the gallery.", lower_bound=1)
_PER_CLASS = flags.DEFINE_integer("per_class", 5, "Rows of each class.", lower_bound=2)
_KS = flags.DEFINE_multi_integer("k", [1, 10], "k of recall_at_k.")
_CHUNK = flags.DEFINE_integer("chunk_size", None, "Queries at a time; default: by memory.")
_ROUNDS = flags.DEFINE_integer("rounds", 1, "Timings of each, in turn.", lower_bound=1)
_PEERS = flags.DEFINE_bool("peers", True, "Time pytorch-metric-learning too.")
_OURS, _FLOOR = "circle_tf retrieval_report", "product + top_k, TensorFlow"
_PEER = "pytorch-metric-learning AccuracyCalculator"


def make_inputs(*, rows, queries, dim, per_class):
    """Keyword arguments of `retrieval_report`."""
    z, ids = noisy_classes(rows=rows + (queries or 0), dim=dim, per_class=per_class)
    if not queries:
        return {"embeddings": z, "labels": ids}
    order = np.random.default_rng(1).permutation(len(ids))
    asked, kept = order[:queries], order[queries:]
    return {
        "embeddings": z[asked],
        "labels": ids[asked],
        "gallery": z[kept],
        "gallery_labels": ids[kept],
    }


def bare_product(queries, gallery, *, chunk_size):
    """The products alone, by NumPy in one buffer."""
    buffer = np.empty([chunk_size, len(gallery)], np.float32)
    for start in range(0, len(queries), chunk_size):
        part = queries[start : start + chunk_size]
        np.matmul(part, gallery.T, out=buffer[: len(part)])


def _timers(inputs, *, peer, reports):
    """Timers by name; what the metrics come to ends up in `reports`."""
    queries, gallery = inputs["embeddings"], inputs.get("gallery", inputs["embeddings"])
    chunks = {"chunk_size": _CHUNK.value or max(1, 2**28 // (4 * len(gallery)))}
    k = max(*_KS.value, _PER_CLASS.value) + 1

    def ours():
        reports[_OURS] = retrieval.retrieval_report(**inputs, ks=_KS.value, chunk_size=_CHUNK.value)
        reports.setdefault("peak MiB", _peak_mib())

    def theirs():
        reports[_PEER] = peer.ask("report")
        return reports[_PEER].pop("seconds")

    timers = {
        _OURS: timing.stopwatch(ours),
        _FLOOR: timing.stopwatch(lambda: steps.bare_search(queries, gallery, k=k, **chunks)),
        "product alone, NumPy": timing.stopwatch(lambda: bare_product(queries, gallery, **chunks)),
    }
    return timers if peer is None else {**timers, _PEER: theirs}


def _peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _warm_up():
    """Starts the threads and libraries of the first use, which are no part of the search."""
    rows, ids = noisy_classes(rows=2000, dim=_DIM.value, per_class=_PER_CLASS.value)
    retrieval.retrieval_report(rows, ids)
    steps.bare_search(rows[:64], rows, k=2, chunk_size=32)


def main(_):
    """Prints the metrics, which must agree, then a table of times."""
    inputs = make_inputs(
        rows=_ROWS.value, queries=_QUERIES.value, dim=_DIM.value, per_class=_PER_CLASS.value
    )
    reports = {}
    _warm_up()
    before = _peak_mib()
    with contextlib.ExitStack() as stack:
        peer = None
        if _PEERS.value:
            peer = stack.enter_context(peers.Peer("benchmarks.retrieval_peers", inputs=inputs))
        timers = _timers(inputs, peer=peer, reports=reports)
        times = timing.interleaved(timers, rounds=_ROUNDS.value, warm_up=0)
    growth = reports.pop("peak MiB") - before
    for name, report in reports.items():
        print(f"{name}:", ", ".join(f"{metric} {value:.6g}" for metric, value in report.items()))
    print(f"peak growth of {_OURS} {growth:.0f} MiB\n")
    timing.print_table(
        ["way", "seconds", f"ratio to {_FLOOR}"],
        [
            [name, float(np.median(seconds)), timing.ratio(seconds, times[_FLOOR])]
            for name, seconds in times.items()
        ],
    )


if __name__ == "__main__":
    app.run(main)
