"""Cars196: the paper's pair-wise experiment.

Paper (Sun et al., CVPR 2020): R@1/2/4/8 83.4/89.8/94.1/96.5, with BN-Inception, 512-D, m 0.4, gamma
80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and random weights. The paper starts from ImageNet's, without which its numbers
cannot be reached, and nobody publishes them for Keras: convert them to --config.model.weights=FILE,
or take a net that has them, as --config.model.backbone=InceptionV3 with its `notop` file.

Cost: 10,000 steps of 80 images; about 2 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' archives, in either form; look at it with
    python -m trainers.data check --dataset=cars196 --path=cars196
Command: python -m trainers.train --config=configs/cars196.py --workdir=runs/cars196 \
    --config.dataset.path=cars196
"""

from configs import paper


def get_config():
    """98 models of cars, tested on 98 others."""
    return paper.retrieval("cars196", steps=10_000)
