"""One-shot character recognition on glyphs, rendered from the fonts matplotlib ships.

Trains a small convolutional net on half of the characters with pair-wise Circle loss, then
recognises the other half in faces never seen, from one example each.

Cost: about 2 minutes on 2 CPU cores. No download.
Command: python -m trainers.train --config=configs/glyphs.py --workdir=runs/glyphs
"""

from configs import base


def get_config():
    """The recipe of `make demo`."""
    config = base.get_config()
    config.dataset.name = "glyphs"
    config.model.backbone = "conv4"
    config.augment.rotation = 8.0
    config.augment.translation = 2 / 32
    config.loss.margin = 0.25
    config.loss.gamma = 80.0
    config.optimizer.learning_rate = 1e-3
    config.steps = 1000
    return config
