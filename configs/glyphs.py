"""One-shot character recognition on glyphs, rendered from the fonts matplotlib ships.

Trains a small convolutional net on half of the characters with pair-wise Circle loss, then
recognises the other half in faces never seen, from one example each.

Cost: about a minute and a half on 2 CPU cores. No download.
Command: python -m trainers.train --config=configs/glyphs.py --workdir=runs/glyphs
With another loss: --config=configs/glyphs.py:class_circle (or any loss of configs/base.py)
"""

from configs import base

# Margin, and gamma at the start and at the end: what won on folds of the training classes
# (docs/comparison.md). Losses that are not here have the defaults of their classes.
_LOSSES = {
    "circle": (0.25, 4.0, 32.0),
    "class_circle": (0.25, 4.0, 32.0),
    "circle_head": (0.25, 4.0, 32.0),
    "keras_circle": (0.25, None, 80.0),  # The paper's: it takes no schedule.
    "arc_face": (0.5, 4.0, 64.0),
}
# These need no pairs: an example of each of many classes teaches them more than several of few.
# They want a higher learning rate, after a longer warm-up.
_ON_CLASS_SCORES = ("class_circle", "circle_head", "cross_entropy")
_ON_CLASS_SCORES += ("norm_face", "am_softmax", "arc_face", "proxy_anchor")


def get_config(loss="circle"):
    """The recipe of `make demo`; `loss` is what stands after the colon of `--config`."""
    config = base.get_config()
    config.dataset.name = "glyphs"
    config.model.backbone = "conv4"
    config.loss.name = loss
    margin, start, end = _LOSSES.get(loss, (None, None, None))
    config.loss.update(margin=margin, gamma_start=start, gamma=end)
    config.optimizer.learning_rate, config.optimizer.warmup_steps = 3e-3, 50
    if loss in _ON_CLASS_SCORES:
        config.batch.update(classes_per_batch=128, examples_per_class=1)
        config.optimizer.update(learning_rate=1e-2, warmup_steps=200)
    config.steps = 800
    return config
