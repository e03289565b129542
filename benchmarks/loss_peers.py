"""PyTorch's side of the loss benchmark: pytorch-metric-learning's CircleLoss, under peers' Python.

Asked by `benchmarks.peers.Peer`, or by hand, which times one batch:

    .venv-peers/bin/python -m benchmarks.loss_peers --rows 1024 --dim 512
"""

import argparse
import json
import sys

import numpy as np
import torch
from pytorch_metric_learning import distances, losses, miners, reducers

from benchmarks import peers, timing
from benchmarks.data import noisy_classes


def circle(inputs, *, case="", margin=0.25, gamma=80.0, calls=1):
    """Seconds of one forward and backward pass, the mean of `calls`.

    Args:
        inputs: arrays `{case}embeddings` `[B, D]` and `{case}labels` `[B]`.
        case: prefix of their names, where several batches are among the inputs.
        margin: m.
        gamma: scale.
        calls: passes.
    """
    step = _step(inputs, case=case, margin=margin, gamma=gamma)
    return timing.stopwatch(step, calls=calls)()


def circle_value(inputs, *, case="", margin=0.25, gamma=80.0):
    """`{"loss": float, "gradient": [B, D]}`, the mean over anchors: to check what is timed."""
    loss, gradient = _step(inputs, case=case, margin=margin, gamma=gamma)()
    return {"loss": loss.item(), "gradient": gradient.tolist()}


def loss_value(inputs, *, name):
    """`{"loss": float, "gradient": [B, D]}` of a loss, the mean over anchors or pairs.

    Args:
        inputs: arrays `embeddings` `[B, D]`, `labels` `[B]`, `weights` `[C, D]`, float64.
        name: as in `benchmarks.loss_agreement`.
    """
    rows, labels, weights = (
        torch.from_numpy(inputs[key]) for key in ("embeddings", "labels", "weights")
    )
    rows.requires_grad_()
    loss, miner = _losses(weights)[name]
    value = loss(rows, labels, miner(rows, labels) if miner else None)
    value.backward()
    return {"loss": value.item(), "gradient": rows.grad.tolist()}


def _losses(weights):
    """`(loss, miner or None)` by name."""
    mean, apart = {"reducer": reducers.MeanReducer()}, distances.LpDistance()
    classes, dim = weights.shape
    of_classes = {
        "am_softmax": losses.CosFaceLoss(classes, dim, margin=0.35, scale=64),
        "arc_face": losses.ArcFaceLoss(classes, dim, margin=np.degrees(0.5), scale=64),
        "norm_face": losses.NormalizedSoftmaxLoss(classes, dim, temperature=1 / 16),
    }
    for loss in of_classes.values():
        loss.W.data = weights.T.contiguous()
    of_classes["proxy_anchor"] = losses.ProxyAnchorLoss(classes, dim, margin=0.1, alpha=32)
    of_classes["proxy_anchor"].proxies.data = weights
    hard = losses.TripletMarginLoss(margin=0.2, distance=apart, **mean)
    soft = losses.TripletMarginLoss(margin=0, smooth_loss=True, distance=apart, **mean)
    lifted = losses.LiftedStructureLoss(neg_margin=1, distance=apart, **mean)
    similar = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5, **mean)
    return {
        **{name: (loss, None) for name, loss in of_classes.items()},
        "circle": (losses.CircleLoss(m=0.25, gamma=80, **mean), None),
        "triplet_hard": (hard, miners.BatchHardMiner(distance=apart)),
        "triplet_all_soft": (soft, None),
        "lifted_structure": (lifted, None),
        "multi_similarity": (similar, miners.MultiSimilarityMiner(epsilon=0.1)),
    }


def versions(_):
    """Versions by name, and the threads that PyTorch uses."""
    import pytorch_metric_learning

    return {
        "torch": torch.__version__,
        "pytorch-metric-learning": pytorch_metric_learning.__version__,
        "threads": torch.get_num_threads(),
    }


def _step(inputs, *, case, margin, gamma):
    loss = losses.CircleLoss(m=margin, gamma=gamma, reducer=reducers.MeanReducer())
    labels = torch.from_numpy(inputs[f"{case}labels"])
    embeddings = torch.from_numpy(inputs[f"{case}embeddings"]).requires_grad_()

    def step():
        embeddings.grad = None
        value = loss(embeddings, labels)
        value.backward()
        return value, embeddings.grad

    return step


def _by_hand():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1024, help="Batch B.")
    parser.add_argument("--dim", type=int, default=512, help="Numbers per embedding D.")
    parser.add_argument("--per_class", type=int, default=4, help="Rows of each class.")
    parser.add_argument("--rounds", type=int, default=5, help="Timings, after one not counted.")
    asked = parser.parse_args()
    embeddings, labels = noisy_classes(rows=asked.rows, dim=asked.dim, per_class=asked.per_class)
    inputs = {"embeddings": embeddings, "labels": labels}
    times = timing.interleaved({"circle": lambda: circle(inputs)}, rounds=asked.rounds)["circle"]
    result = {"median_seconds": np.median(times), "min_seconds": times.min()}
    print(json.dumps({**vars(asked), **result, **versions({})}))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1].endswith(".npz"):
        own = {"circle": circle, "circle_value": circle_value, "loss_value": loss_value}
        peers.serve({**own, "versions": versions})
    else:
        _by_hand()
