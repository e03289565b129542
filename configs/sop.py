"""Stanford Online Products: the paper's pair-wise experiment (its table of retrieval).

Paper (Sun et al., CVPR 2020): R@1/10/100/1000 78.3/90.5/96.1/98.6, with BN-Inception, 512-D, m 0.4,
gamma 80, P 16 x K 5. Not run here.
Our choice, as the paper does not say: learning rate, optimizer, length of the run, augmentation,
224 x 224 pixels; and random weights. The paper starts from ImageNet's, without which its numbers
cannot be reached, and nobody publishes them for Keras: convert them to --config.model.weights=FILE,
or take a net that has them, as --config.model.backbone=InceptionV3 with its `notop` file.

Cost: 60,000 steps of 80 images; about 12 hours on one data-centre GPU (an estimate), days on a CPU.
Data: the authors' archive Stanford_Online_Products; look at it with
    python -m trainers.data check --dataset=sop --path=Stanford_Online_Products
Command: python -m trainers.train --config=configs/sop.py --workdir=runs/sop \
    --config.dataset.path=Stanford_Online_Products
"""

from configs import paper


def get_config():
    """11,318 products, tested on 11,316 others."""
    return paper.retrieval("sop", steps=60_000)
