"""Stanford Online Products: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): R@1/10/100/1000 78.3/90.5/96.1/98.6, with BN-Inception, 512-D, m 0.4,
gamma 80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and InceptionV3 in place of BN-Inception, which is not among
`circle_tf.backbones`, from random weights (the paper starts from ImageNet's: give a file of
keras.applications as --config.model.weights=FILE, without which its numbers cannot be reached).

Cost: 60,000 steps of 80 images; about 12 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' archive Stanford_Online_Products; look at it with
    python -m trainers.data check --dataset=sop --path=Stanford_Online_Products
Command: python -m trainers.train --config=configs/sop.py --workdir=runs/sop \
    --config.dataset.path=Stanford_Online_Products
"""

from configs import base


def get_config():
    """11,318 products, tested on 11,316 others."""
    config = base.get_config()
    config.dataset.name = "sop"
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
    config.steps = 60000
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
