"""Your own images: one sub-folder per class, any image format that TensorFlow decodes.

Colour photographs, ResNet18V2 from scratch, pair-wise Circle loss with the paper's setting for
image retrieval (m 0.4, gamma 80, P 16 x K 5). A fifth of the classes is kept for testing.

Cost: about 3 s a step on 2 CPU cores at 128 x 128: a GPU is advised. A small first try on CPU:
--config.model.backbone=conv4 --config.dataset.image_size=64
Command: python -m trainers.train --config=configs/folder.py --workdir=runs/mine \
    --config.dataset.path=images
"""

from configs import base


def get_config():
    """Photographs in a folder per class."""
    config = base.get_config()
    config.dataset.name = "folder"
    config.dataset.image_size = 128
    config.dataset.channels = 3
    config.batch.classes_per_batch = 16
    config.batch.examples_per_class = 5
    config.model.backbone = "resnet18_v2"
    config.augment.flip = "horizontal"
    config.augment.rotation = 10.0
    config.augment.translation = 0.1
    config.augment.zoom = 0.1
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    config.loss.margin = 0.4
    config.loss.gamma = 80.0
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 1e-4
    config.optimizer.warmup_steps = 200
    config.steps = 5000
    config.eval_every = 250
    config.checkpoint_every = 250
    return config
