"""CUB-200-2011: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): R@1/2/4/8 66.7/77.4/86.2/91.2, with BN-Inception, 512-D, m 0.4, gamma
80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and random weights. The paper starts from ImageNet's, without which its numbers
cannot be reached, and nobody publishes them for Keras: convert them to --config.model.weights=FILE,
or take a net that has them, as --config.model.backbone=InceptionV3 with its `notop` file.

Cost: 10,000 steps of 80 images; about 2 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' archive CUB_200_2011; look at it with
    python -m trainers.data check --dataset=cub200 --path=CUB_200_2011
Command: python -m trainers.train --config=configs/cub200.py --workdir=runs/cub200 \
    --config.dataset.path=CUB_200_2011
"""

from configs import paper


def get_config():
    """100 kinds of birds, tested on 100 others."""
    return paper.retrieval("cub200", steps=10_000)
