"""One-shot character recognition on glyphs, rendered from the fonts matplotlib ships.

Trains a small convolutional net on half of the characters with pair-wise Circle loss, then
recognises the other half in faces never seen, from one example each.

Cost: about a minute and a half on 2 CPU cores. No download.
Command: python -m trainers.train --config=configs/glyphs.py --workdir=runs/glyphs
With another loss: --config=configs/glyphs.py:class_circle (or keras_circle, cross_entropy)
"""

from configs import base

# Of the same net, batches and steps; margin and gamma are our choice, gamma of class-level too:
# at the paper's 256 so short a run learns less.
_LOSSES = {
    "circle": (0.25, 80.0),
    "class_circle": (0.25, 64.0),
    "keras_circle": (0.25, 80.0),
    "cross_entropy": (None, None),
}


def get_config(loss="circle"):
    """The recipe of `make demo`; `loss` is what stands after the colon of `--config`."""
    config = base.get_config()
    config.dataset.name = "glyphs"
    config.model.backbone = "conv4"
    config.loss.name = loss
    config.loss.margin, config.loss.gamma = _LOSSES.get(loss, (None, None))
    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 50
    config.steps = 800
    return config
