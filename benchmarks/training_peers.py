"""PyTorch's side of the training benchmark: the same net, batches and optimiser, peers' Python.

The net is `conv4` of circle_tf.backbones, layer for layer, with a unit embedding of 128; the loss
is pytorch-metric-learning's. The loop is as bare as can be: batches are picked from an array in
memory, nothing is logged, evaluated or saved.
"""

import time

import torch
from pytorch_metric_learning import losses

from benchmarks import peers


class Run:
    """A training run that goes on where it stopped.

    Args:
        inputs: arrays `images` `[N, H, W, 1]` uint8, `labels` `[N]`, `rows` `[steps, B]`, the
            examples of each step's batch.
        channels_last: whether PyTorch keeps maps as TensorFlow does.
    """

    def __init__(self, inputs, *, channels_last=False):
        torch.manual_seed(0)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        images = torch.from_numpy(inputs["images"]).permute(0, 3, 1, 2).contiguous()
        self._images, self._labels = images, torch.from_numpy(inputs["labels"])
        self._rows = torch.from_numpy(inputs["rows"])
        self._net = _net(images.shape[1:]).to(memory_format=self._layout)
        self._loss = losses.CircleLoss(m=0.25, gamma=80)
        self._optimizer = torch.optim.Adam(self._net.parameters(), lr=2e-3)
        self._step = 0

    def steps(self, count):
        """Seconds of the next `count` steps."""
        start = time.perf_counter()
        for _ in range(count):
            rows = self._rows[self._step % len(self._rows)]
            pixels = self._images[rows].to(torch.float32, memory_format=self._layout) / 255
            self._optimizer.zero_grad()
            embeddings = torch.nn.functional.normalize(self._net(pixels))
            loss = self._loss(embeddings, self._labels[rows])
            loss.backward()
            self._optimizer.step()
            loss.item()
            self._step += 1
        return time.perf_counter() - start


def _net(shape):
    channels, height, width = shape
    layers = []
    for filters in (32, 64, 128, 256):
        layers += [
            torch.nn.Conv2d(channels, filters, 3, padding=1, bias=False),
            torch.nn.BatchNorm2d(filters),
            torch.nn.MaxPool2d(2),
            torch.nn.ReLU(),
        ]
        channels, height, width = filters, height // 2, width // 2
    dense = torch.nn.Linear(channels * height * width, 128)
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), dense)


_RUNS = {}


def seconds(inputs, *, steps, channels_last=False):
    """Seconds of the next `steps` steps of the run of that layout."""
    if channels_last not in _RUNS:
        _RUNS[channels_last] = Run(inputs, channels_last=channels_last)
    return _RUNS[channels_last].steps(steps)


if __name__ == "__main__":
    peers.serve({"seconds": seconds})
