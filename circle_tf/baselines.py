"""The losses that Circle loss is compared with: one name for all of them.

On embeddings of a batch (losses/pair_losses.py), on cosines to class weights
(losses/class_losses.py), and as functions of distances (losses/distances.py).
"""

from circle_tf.losses.class_losses import AMSoftmaxLoss, ArcFaceLoss, NormFaceLoss, ProxyAnchorLoss
from circle_tf.losses.distances import (
    contrastive,
    cosine_distances,
    distances,
    lifted_structure,
    npairs,
    triplet_hard,
    triplet_semihard,
)
from circle_tf.losses.pair_losses import (
    ContrastiveLoss,
    LiftedStructureLoss,
    MultiSimilarityLoss,
    NPairsLoss,
    TripletLoss,
    UnifiedLoss,
)

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
