"""CUB-200-2011: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): R@1/2/4/8 66.7/77.4/86.2/91.2, with BN-Inception, 512-D, m 0.4, gamma
80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and InceptionV3 in place of BN-Inception, which is not among
`circle_tf.backbones`, from random weights (the paper starts from ImageNet's: give a file of
keras.applications as --config.model.weights=FILE, without which its numbers cannot be reached).

Cost: 10,000 steps of 80 images; about 2 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' archive CUB_200_2011; look at it with
    python -m trainers.data check --dataset=cub200 --path=CUB_200_2011
Command: python -m trainers.train --config=configs/cub200.py --workdir=runs/cub200 \
    --config.dataset.path=CUB_200_2011
"""

from configs import base


def get_config():
    """100 kinds of birds, tested on 100 others."""
    config = base.get_config()
    config.dataset.name = "cub200"
    config.dataset.image_size = 224
    config.dataset.channels = 3
    config.batch.classes_per_batch = 16
    config.batch.examples_per_class = 5
    config.model.backbone = "InceptionV3"
    config.model.embedding_dim = 512
    config.loss.name = "circle"
    config.loss.margin = 0.4
    config.loss.gamma = 80.0
    config.augment.flip = "horizontal"
    config.augment.translation = 0.1
    config.augment.zoom = 0.15
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-4
    config.optimizer.warmup_steps = 500
    config.precision = "mixed_bfloat16"
    config.steps = 10000
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
