"""PyTorch's side of the check of a GPU: losses, heads, and ResNet50, under peers' Python.

On the GPU where PyTorch sees one, with products rounded to TF32 as TensorFlow does by default.
"""

import time

import torch
from torch import nn

from benchmarks import peers

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


def versions(_):
    """Versions and device, by name."""
    name = torch.cuda.get_device_name() if _DEVICE == "cuda" else "CPU"
    return {"torch": torch.__version__, "cuda": torch.version.cuda, "device": name}


def pairs(*, rows, dim, margin, gamma):
    """Step of a plain pair-wise Circle loss on the whole matrix, compiled where that works."""
    embeddings, labels = _batch(rows, dim)
    loss = torch.compile(_circle)
    return _step(lambda *inputs: loss(*inputs, margin, gamma), embeddings, labels)


def pairs_of_pml(*, rows, dim, margin, gamma):
    """Step of pytorch-metric-learning's CircleLoss."""
    from pytorch_metric_learning import losses

    return _step(losses.CircleLoss(m=margin, gamma=gamma), *_batch(rows, dim))


def classes(*, classes, dim, rows, margin=0.25, gamma=256.0):
    """Step of a plain circle-softmax, compiled where that works."""
    embeddings, labels = _batch(rows, dim)
    weights = torch.randn(classes, dim, device=_DEVICE, requires_grad=True)

    def loss(embeddings, weights, labels):
        cosines = nn.functional.normalize(embeddings) @ nn.functional.normalize(weights).T
        own = torch.arange(len(weights), device=_DEVICE) == labels[:, None]
        fixed = cosines.detach()
        by_own = (1 + margin - fixed).clamp(min=0) * (cosines - 1 + margin)
        by_other = (fixed + margin).clamp(min=0) * (cosines - margin)
        return nn.functional.cross_entropy(gamma * torch.where(own, by_own, by_other), labels)

    return _step(torch.compile(loss), embeddings, weights, labels)


def classes_of_pml(*, classes, dim, rows):
    """Step of pytorch-metric-learning's ArcFace."""
    from pytorch_metric_learning import losses

    loss = losses.ArcFaceLoss(classes, dim).to(_DEVICE)
    return _step(loss, *_batch(rows, dim), parameters=[loss.W])


def training(*, rows, size, dim, precision, net):
    """Step that trains a net on images of bytes from the host's memory: channels last, autocast."""
    images = torch.randint(0, 256, (rows, size, size, 3), dtype=torch.uint8)
    images = images.pin_memory() if _DEVICE == "cuda" else images
    labels = torch.arange(rows, device=_DEVICE) // 4
    model = _NETS[net](dim).to(_DEVICE, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    scaler = torch.amp.GradScaler(_DEVICE, enabled=precision == "float16")
    compiled, loss = torch.compile(model), torch.compile(_circle)

    def step():
        pixels = images.to(_DEVICE, non_blocking=True).permute(0, 3, 1, 2).float()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(_DEVICE, dtype=getattr(torch, precision)):
            embeddings = compiled(pixels)
        value = loss(nn.functional.normalize(embeddings.float()), labels)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def _circle(unit, labels, margin=0.4, gamma=80.0):
    similarities = unit @ unit.T
    same = labels[:, None] == labels
    apart = ~torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    fixed = similarities.detach()
    by_same = -gamma * (1 + margin - fixed).clamp(min=0) * (similarities - 1 + margin)
    by_other = gamma * (fixed + margin).clamp(min=0) * (similarities - margin)
    positives = torch.logsumexp(by_same.masked_fill(~(same & apart), -torch.inf), 1)
    negatives = torch.logsumexp(by_other.masked_fill(same, -torch.inf), 1)
    return nn.functional.softplus(positives + negatives).mean()


class _Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.branch = nn.Sequential(
            *_convolution(channels, width, 1, stride),  # As Keras: the stride is in the first.
            nn.ReLU(),
            *_convolution(width, width, 3, 1),
            nn.ReLU(),
            *_convolution(width, 4 * width, 1, 1),
        )
        self.shortcut = nn.Identity()
        if channels != 4 * width:
            self.shortcut = nn.Sequential(*_convolution(channels, 4 * width, 1, stride))

    def forward(self, maps):
        return nn.functional.relu(self.branch(maps) + self.shortcut(maps))


def _convolution(channels, filters, size, stride):
    convolution = nn.Conv2d(channels, filters, size, stride, padding=size // 2)
    return convolution, nn.BatchNorm2d(filters)


def _resnet50(dim):
    layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers.append(_Bottleneck(channels, 64 * 2**stage, 2 if stage and not block else 1))
            channels = 256 * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, dim))


def _tiny(dim):
    layers = (*_convolution(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(8, dim))


_NETS = {"ResNet50": _resnet50, "tiny": _tiny}
_STEPS = {
    function.__name__: function
    for function in (pairs, pairs_of_pml, classes, classes_of_pml, training)
}


def _batch(rows, dim):
    embeddings = nn.functional.normalize(torch.randn(rows, dim, device=_DEVICE))
    return embeddings.requires_grad_(), torch.arange(rows, device=_DEVICE) // 4


def _step(loss, *inputs, parameters=()):
    variables = [value for value in inputs if value.requires_grad] + list(parameters)

    def step():
        for variable in variables:
            variable.grad = None
        loss(*inputs).backward()

    return step


_CURRENT = {}


def timed(_, *, name, calls, **options):
    """`{"seconds": of one call, "peak": bytes beyond the inputs, None on a CPU}`, or an error.

    A step is kept until another one is asked for.
    """
    key = name, tuple(sorted(options.items()))
    try:
        if key not in _CURRENT:
            _CURRENT.clear()
            if _DEVICE == "cuda":
                torch.cuda.empty_cache()
            _CURRENT[key] = _STEPS[name](**options), _allocated()
        step, before = _CURRENT[key]
        return _timed(step, calls, before)
    except Exception as error:  # Too little memory, no compiler: the others still run.
        _CURRENT.clear()
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def _timed(step, calls, before):
    if _DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        step()
    if _DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / calls
    peak = torch.cuda.max_memory_allocated() - before if _DEVICE == "cuda" else None
    return {"seconds": seconds, "peak": peak}


def _allocated():
    return torch.cuda.memory_allocated() if _DEVICE == "cuda" else 0


if __name__ == "__main__":
    peers.serve({"timed": timed, "versions": versions})
