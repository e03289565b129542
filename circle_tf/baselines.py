"""The losses that Circle loss is compared with: one name for all of them.

On embeddings of a batch (losses/pair_losses.py), on cosines to class weights
(losses/class_losses.py), and as functions of distances.
"""

from circle_tf.losses.class_losses import AMSoftmaxLoss, ArcFaceLoss, NormFaceLoss, ProxyAnchorLoss
from circle_tf.losses.distance_baselines import ContrastiveLoss, LiftedStructureLoss, TripletLoss
from circle_tf.losses.distance_losses import (
    contrastive,
    cosine_distances,
    distances,
    lifted_structure,
    npairs,
    triplet_hard,
    triplet_semihard,
)
from circle_tf.losses.pair_losses import MultiSimilarityLoss, NPairsLoss, UnifiedLoss

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
