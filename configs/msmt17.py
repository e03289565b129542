"""MSMT17: the paper's re-identification experiment.

Paper (Sun et al., CVPR 2020): ResNet50 + Circle, rank-1 76.3, mAP 50.2; class-level labels, m 0.25,
gamma 128. MGN + Circle: 76.9/52.1, for which --config.model.backbone=mgn is a net of its style
(three branches, eight parts), with one loss on all its features. Not run here.
Our choice, as the paper does not say: 512-D, batch (P 16 x K 4), learning rate, optimizer, length
of the run, augmentation, 256 x 128 pixels as most of the field takes; weights start at random
unless --config.model.weights=FILE names ImageNet's, without which these figures cannot be reached.

Cost: 60,000 steps of 64 images; about 8 hours on one data-centre GPU (an estimate), days on a CPU.
Evaluation: CMC, mAP and mINP by cameras, as the protocol has it (docs/protocols.md); with --rerank
of trainers.evaluate after k-reciprocal re-ranking too.
Data: the authors' archive MSMT17_V1 or MSMT17_V2; look at it with
    python -m trainers.data check --dataset=msmt17 --path=MSMT17_V1
Command: python -m trainers.train --config=configs/msmt17.py --workdir=runs/msmt17 \
    --config.dataset.path=MSMT17_V1
"""

from configs import paper


def get_config():
    """1,041 people by fifteen cameras, tested on 3,060 others."""
    return paper.re_identification("msmt17", steps=60_000)
