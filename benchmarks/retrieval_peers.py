"""pytorch-metric-learning's side of the retrieval benchmark, under peers' Python."""

import time

import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from benchmarks import peers

_METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


def report(inputs):
    """`{"seconds": float, metric: float}` of AccuracyCalculator (faiss, on the CPU).

    It looks up as many neighbours as the metrics need; as it comes it looks up 1,023, for longer.

    Args:
        inputs: arrays `embeddings`, `labels`, and, unless it is leave-one-out, `gallery` and
            `gallery_labels`.
    """
    start = time.perf_counter()
    rows = [_unit(inputs["embeddings"]), torch.from_numpy(inputs["labels"])]
    if "gallery" in inputs:
        rows += [_unit(inputs["gallery"]), torch.from_numpy(inputs["gallery_labels"])]
    found = AccuracyCalculator(include=_METRICS, k="max_bin_count").get_accuracy(*rows)
    return {"seconds": time.perf_counter() - start, **{name: found[name] for name in _METRICS}}


def _unit(embeddings):
    return torch.nn.functional.normalize(torch.from_numpy(embeddings))


if __name__ == "__main__":
    peers.serve({"report": report})
