"""Whether our retrieval metrics are pytorch-metric-learning's: the table of docs/protocols.md.

    make bench-peers
    python -m benchmarks.protocol_agreement

Leave-one-out and with a gallery, with equal classes, unequal ones, classes of one example, and rows
that are the same to the bit; largest absolute difference of Precision@1, R-precision and MAP@R.
"""

import numpy as np
from absl import app

from benchmarks import peers, timing
from circle_tf.evaluation import retrieval

_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


def cases():
    """Inputs by name, as `retrieval_report` takes them."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(2000, 32)).astype(np.float32)
    even = np.arange(2000) % 100
    rows += 0.7 * random.normal(size=(100, 32)).astype(np.float32)[even]
    uneven = np.minimum(random.geometric(0.02, size=2000), 150)
    alone = np.where(np.arange(2000) < 200, 1000 + np.arange(2000), even)
    gallery = {"gallery": rows[500:], "gallery_labels": even[500:]}
    twice = np.concatenate([rows[:1000], rows[:1000]])
    return {
        "classes of 20, leave-one-out": {"embeddings": rows, "labels": even},
        "classes of 1 to 100, leave-one-out": {"embeddings": rows, "labels": uneven},
        "200 classes of one example": {"embeddings": rows, "labels": alone},
        "queries and gallery": {"embeddings": rows[:500], "labels": even[:500], **gallery},
        "each row twice, classes apart": {
            "embeddings": twice,
            "labels": np.concatenate([even[:1000], even[:1000] + 100]),
        },
    }


def main(_):
    """Prints the table."""
    rows = []
    for name, inputs in cases().items():
        inputs = {key: np.asarray(value) for key, value in inputs.items()}
        ours = retrieval.retrieval_report(**inputs)
        with peers.Peer("benchmarks.retrieval_peers", inputs=inputs) as peer:
            theirs = peer.ask("report")
        apart = max(abs(ours.get(key, ours["recall_at_1"]) - theirs[key]) for key in _METRICS)
        shown = [f"{ours[_METRICS[2]]:.6f}", f"{theirs[_METRICS[2]]:.6f}"]
        rows.append([name, ours["queries"], *shown, f"{apart:.1e}"])
    header = ["case", "queries that count", "MAP@R", "MAP@R of PML", "largest difference"]
    timing.print_table(header, rows)


if __name__ == "__main__":
    app.run(main)
