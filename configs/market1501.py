"""Market-1501: the paper's re-identification experiment.

Paper (Sun et al., CVPR 2020): ResNet50 + Circle, rank-1 94.2, mAP 84.9; class-level labels, m 0.25,
gamma 128. MGN + Circle: 96.1/87.4, for which --config.model.backbone=mgn is a net of its style
(three branches, eight parts), with one loss on all its features. Not run here.
Our choice, as the paper does not say: 512-D, batch (P 16 x K 4), learning rate, optimizer, length
of the run, augmentation, 256 x 128 pixels as most of the field takes; weights start at random
unless --config.model.weights=FILE names ImageNet's, without which these figures cannot be reached.

Cost: 24,000 steps of 64 images; about 3 hours on one data-centre GPU (an estimate), days on a CPU.
Evaluation: CMC, mAP and mINP by cameras, as the protocol has it (docs/protocols.md); with --rerank
of trainers.evaluate after k-reciprocal re-ranking too.
Data: the authors' archive Market-1501-v15.09.15; look at it with
    python -m trainers.data check --dataset=market1501 --path=Market-1501-v15.09.15
Command: python -m trainers.train --config=configs/market1501.py --workdir=runs/market1501 \
    --config.dataset.path=Market-1501-v15.09.15
"""

from configs import paper


def get_config():
    """751 people by six cameras, tested on 750 others."""
    return paper.re_identification("market1501", steps=24_000)
