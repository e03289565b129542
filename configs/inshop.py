"""DeepFashion In-Shop: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): no figures for this data set; the setting is that of SOP, with BN-
Inception, 512-D, m 0.4, gamma 80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and InceptionV3 in place of BN-Inception, which is not among
`circle_tf.backbones`, from random weights (the paper starts from ImageNet's: give a file of
keras.applications as --config.model.weights=FILE, without which its numbers cannot be reached).

Cost: 40,000 steps of 80 images; about 8 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' In-shop Clothes Retrieval Benchmark; look at it with
    python -m trainers.data check --dataset=inshop --path=inshop
Command: python -m trainers.train --config=configs/inshop.py --workdir=runs/inshop \
    --config.dataset.path=inshop
"""

from configs import base


def get_config():
    """3,997 items of clothing, tested on 3,985 others."""
    config = base.get_config()
    config.dataset.name = "inshop"
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
    config.steps = 40000
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
