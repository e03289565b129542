"""pytorch-metric-learning's CrossBatchMemory, under peers' Python; see `memory_benchmark`."""

import torch
from pytorch_metric_learning import losses, reducers

from benchmarks import peers, timing

_STEPS = {}


def memory_step(inputs, *, size, margin=0.25, gamma=80.0, calls=1):
    """Seconds of one step: loss against batch and memory, gradient, filling.

    Args:
        inputs: arrays `embeddings` `[B, D]` and `labels` `[B]`.
        size: rows held, M; the memory is full when the clock starts.
        margin: m.
        gamma: scale.
        calls: steps, of which the mean is taken.
    """
    if size not in _STEPS:
        _STEPS[size] = _full(inputs, size=size, margin=margin, gamma=gamma)
    return timing.stopwatch(_STEPS[size], calls=calls)()


def _full(inputs, *, size, margin, gamma):
    rows = torch.from_numpy(inputs["embeddings"])
    labels = torch.from_numpy(inputs["labels"])
    circle = losses.CircleLoss(m=margin, gamma=gamma, reducer=reducers.MeanReducer())
    memory = losses.CrossBatchMemory(circle, rows.shape[1], memory_size=size)
    generator = torch.Generator().manual_seed(0)
    held = torch.randn(size, rows.shape[1], generator=generator)
    memory.add_to_memory(held, torch.arange(size) // 4, size)
    embeddings = rows.clone().requires_grad_()

    def step():
        embeddings.grad = None
        memory(embeddings, labels).backward()

    return step


if __name__ == "__main__":
    peers.serve({"memory_step": memory_step})
