"""PyTorch's side of the head benchmark: class-level losses, under peers' Python."""

import torch
from pytorch_metric_learning import losses

from benchmarks import peers, timing


def circle(inputs, *, margin=0.25, gamma=256.0):
    """Seconds of a plain circle-softmax, forward and backward."""
    embeddings, labels, weights = _tensors(inputs)

    def step():
        unit = torch.nn.functional.normalize(weights)
        cosines = torch.nn.functional.normalize(embeddings) @ unit.T
        own = torch.nn.functional.one_hot(labels, len(weights)).bool()
        by_own = (1 + margin - cosines.detach()).clamp(min=0) * (cosines - 1 + margin)
        by_other = (cosines.detach() + margin).clamp(min=0) * (cosines - margin)
        logits = gamma * torch.where(own, by_own, by_other)
        _backward(torch.nn.functional.cross_entropy(logits, labels), embeddings, weights)

    return timing.stopwatch(step)()


def arcface(inputs):
    """Seconds of ArcFace, forward and backward."""
    embeddings, labels, weights = _tensors(inputs)
    loss = losses.ArcFaceLoss(len(weights), embeddings.shape[1])
    loss.W.data = weights.detach().T.contiguous()
    return timing.stopwatch(lambda: _backward(loss(embeddings, labels), embeddings, loss.W))()


def _tensors(inputs):
    embeddings, labels, weights = (
        torch.from_numpy(inputs[name]) for name in ("embeddings", "labels", "weights")
    )
    return embeddings.requires_grad_(), labels, weights.requires_grad_()


def _backward(loss, *variables):
    for variable in variables:
        variable.grad = None
    loss.backward()


if __name__ == "__main__":
    peers.serve({"circle": circle, "arcface": arcface})
