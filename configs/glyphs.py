"""One-shot character recognition on glyphs, rendered from the fonts matplotlib ships.

Trains a small convolutional net on half of the characters with pair-wise Circle loss, then
recognises the other half in faces never seen, from one example each.

Cost: about a minute and a half on 2 CPU cores. No download.
Command: python -m trainers.train --config=configs/glyphs.py --workdir=runs/glyphs
With another loss: --config=configs/glyphs.py:class_circle (or keras_circle, cross_entropy)
"""

from configs import base

# Margin, and gamma at the start and at the end, of the same net, batches and steps: what won on
# folds of the training classes (docs/benchmarks/quality.md).
_LOSSES = {
    "circle": (0.25, 4.0, 80.0),
    "class_circle": (0.25, 4.0, 64.0),
    "keras_circle": (0.25, None, 80.0),
    "cross_entropy": (None, None, None),
}
# Without pairs an example of each of many classes teaches more than several of few.
_OF_CLASSES = ("class_circle", "cross_entropy")


def get_config(loss="circle"):
    """The recipe of `make demo`; `loss` is what stands after the colon of `--config`."""
    config = base.get_config()
    config.dataset.name = "glyphs"
    config.model.backbone = "conv4"
    config.loss.name = loss
    margin, start, end = _LOSSES.get(loss, (None, None, None))
    config.loss.update(margin=margin, gamma_start=start, gamma=end)
    if loss in _OF_CLASSES:
        config.batch.classes_per_batch, config.batch.examples_per_class = 128, 1
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 200 if loss == "class_circle" else 50
    config.steps = 800
    return config
