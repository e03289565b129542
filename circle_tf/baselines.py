"""The losses that Circle loss is compared with: one name for all of them.

On embeddings of a batch (cosines: `circle_tf.pair_baselines`, distances:
`circle_tf.distance_baselines`), on cosines to class weights (`circle_tf.class_baselines`), and as
functions of distances (`circle_tf.distance_losses`).
"""

from circle_tf.class_baselines import AMSoftmaxLoss, ArcFaceLoss, NormFaceLoss, ProxyAnchorLoss
from circle_tf.distance_baselines import ContrastiveLoss, LiftedStructureLoss, TripletLoss
from circle_tf.distance_losses import (
    contrastive,
    cosine_distances,
    distances,
    lifted_structure,
    npairs,
    triplet_hard,
    triplet_semihard,
)
from circle_tf.pair_baselines import MultiSimilarityLoss, NPairsLoss, UnifiedLoss

__all__ = [
    "AMSoftmaxLoss",
    "ArcFaceLoss",
    "ContrastiveLoss",
    "LiftedStructureLoss",
    "MultiSimilarityLoss",
    "NPairsLoss",
    "NormFaceLoss",
    "ProxyAnchorLoss",
    "TripletLoss",
    "UnifiedLoss",
    "contrastive",
    "cosine_distances",
    "distances",
    "lifted_structure",
    "npairs",
    "triplet_hard",
    "triplet_semihard",
]
