"""MSMT17: the paper's re-identification experiment.

Paper (Sun et al., CVPR 2020): ResNet50 + Circle, rank-1 76.3, mAP 50.2; class-level labels, m 0.25,
gamma 128. MGN + Circle: 76.9/52.1, for which --config.model.backbone=mgn is a net of its style
(three branches, eight parts), with one loss on all its features. Not run here.
Our choice, as the paper does not say: 512-D, batch (P 16 x K 4), learning rate, optimizer, length
of the run, augmentation, 192 x 192 pixels where others take 256 x 128; weights start at random
unless --config.model.weights=FILE names ImageNet's, without which these figures cannot be reached.

Cost: 60,000 steps of 64 images; about 8 hours on one data-centre GPU (an estimate), days on a CPU.
Evaluation: CMC, mAP and mINP by cameras, as the protocol has it (docs/protocols.md).
Data: the authors' archive MSMT17_V1 or MSMT17_V2; look at it with
    python -m trainers.data check --dataset=msmt17 --path=MSMT17_V1
Command: python -m trainers.train --config=configs/msmt17.py --workdir=runs/msmt17 \
    --config.dataset.path=MSMT17_V1
"""

from configs import base


def get_config():
    """1,041 people by fifteen cameras, tested on 3,060 others."""
    config = base.get_config()
    config.dataset.name = "msmt17"
    config.dataset.image_size = 192
    config.dataset.channels = 3
    config.batch.classes_per_batch = 16
    config.batch.examples_per_class = 4
    config.model.backbone = "ResNet50"
    config.model.embedding_dim = 512
    config.loss.name = "class_circle"
    config.loss.margin = 0.25
    config.loss.gamma = 128.0
    config.augment.flip = "horizontal"
    config.augment.translation = 0.05
    config.augment.cutout = 0.3
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3.5e-4
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup_steps = 1000
    config.precision = "mixed_bfloat16"
    config.steps = 60000
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
