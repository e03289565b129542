"""Faces from MS-Celeb-1M: the paper's class-level experiment with ResNet34.

Paper (Sun et al., CVPR 2020): ResNet34 + Circle, MegaFace rank-1 97.81 and verification at 1e-6
98.12, LFW 99.73, YTF 96.38, CFP-FP 96.02; 3.6 million images of 79.9 thousand people, aligned to
112 x 112, flipped; 512-D, m 0.25, gamma 256; 182 thousand iterations, learning rate 0.1 divided by
10 after 50, 70 and 90 %. Not run here.
Our choice, as the paper does not say: batch (P 128 x K 4), SGD with momentum 0.9, weight decay
5e-4, the 34-layer net usual for faces (iresnet34; without the batch norm after its last layer).

Cost: 182,000 steps of 512 images; about two days on eight data-centre GPUs (an estimate).
Data: aligned images as TFRecord, from a folder per person by
    python -m trainers.data convert --path=FOLDER --output=ms1m
or, where it is `train.rec` and `train.idx`, with --dataset=recordio.
More people than memory holds: --config.loss.name=circle_head --config.loss.shards=replicas
    --config.loss.sample_rate=0.1 (docs/distributed.md).
Evaluation: leave-one-out on held-out people; LFW, CFP-FP and AgeDB as `.bin` files by
    python -m trainers.evaluate --workdir=runs/face_r34 --pairs=lfw.bin --pairs=cfp_fp.bin
IJB-C by --ijbc=FOLDER, MegaFace by --probes=facescrub --distractors=megaface (docs/protocols.md).
Command: python -m trainers.train --config=configs/face_r34.py --workdir=runs/face_r34 \
    --config.dataset.path=ms1m
"""

from configs import paper


def get_config():
    """79.9 thousand people, a class weight for each."""
    return paper.faces("iresnet34")
