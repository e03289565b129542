"""DeepFashion In-Shop: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): no figures for this data set; the setting is that of SOP, with BN-
Inception, 512-D, m 0.4, gamma 80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and random weights. The paper starts from ImageNet's, without which its numbers
cannot be reached, and nobody publishes them for Keras: convert them to --config.model.weights=FILE,
or take a net that has them, as --config.model.backbone=InceptionV3 with its `notop` file.

Cost: 40,000 steps of 80 images; about 8 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' In-shop Clothes Retrieval Benchmark; look at it with
    python -m trainers.data check --dataset=inshop --path=inshop
Command: python -m trainers.train --config=configs/inshop.py --workdir=runs/inshop \
    --config.dataset.path=inshop
"""

from configs import paper


def get_config():
    """3,997 items of clothing, tested on 3,985 others."""
    return paper.retrieval("inshop", steps=40_000)
