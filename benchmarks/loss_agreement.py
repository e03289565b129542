"""Whether the losses are pytorch-metric-learning's where the two define the same.

    make bench-peers
    python -m benchmarks.loss_agreement

Value and gradient by the raw embeddings in float64, mean over anchors, on a batch of P classes x K
examples. Left out are losses that the two define otherwise: contrastive (over pairs, not anchors),
N-pairs (one pair of each class), semi-hard triplets (other choice of negatives).
"""

import numpy as np
import tensorflow as tf
from absl import app

import circle_tf
from benchmarks import peers, timing
from circle_tf import baselines


def ours():
    """Losses on embeddings and on cosines to class weights, by the peer's name."""
    on_pairs = {
        "circle": circle_tf.CircleLoss(0.25, 80.0),
        "triplet_hard": baselines.TripletLoss(0.2, "hard"),
        "triplet_all_soft": baselines.TripletLoss(mining="all", soft=True),
        "lifted_structure": baselines.LiftedStructureLoss(1.0),
        "multi_similarity": baselines.MultiSimilarityLoss(2.0, 50.0, 0.5, 0.1),
    }
    on_classes = {
        "am_softmax": baselines.AMSoftmaxLoss(0.35, 64.0),
        "arc_face": baselines.ArcFaceLoss(0.5, 64.0),
        "norm_face": baselines.NormFaceLoss(16.0),
        "proxy_anchor": baselines.ProxyAnchorLoss(0.1, 32.0),
    }
    return on_pairs, on_classes


def inputs_of(*, spread, seed=0):
    """A batch of 16 classes x 4 and 40 class weights, float64."""
    random = np.random.default_rng(seed)
    weights, ids = random.normal(size=(40, 32)), np.repeat(random.permutation(40)[:16], 4)
    rows = weights[ids] + spread * random.normal(size=(64, 32))
    return {"embeddings": rows, "labels": ids, "weights": weights}


def value_and_gradient(loss, inputs, *, on_classes):
    """`(float, [B, D])` of a loss."""
    rows = tf.constant(inputs["embeddings"])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        given = rows
        if on_classes:
            parts = (rows, tf.constant(inputs["weights"]))
            given = tf.matmul(*(tf.math.l2_normalize(p, axis=1) for p in parts), transpose_b=True)
        value = loss(tf.constant(inputs["labels"]), given)
    return float(value), tape.gradient(value, rows).numpy()


def main(_):
    """Prints the table."""
    rows = []
    for where, spread in (("at the start", 8.0), ("near the end", 0.7)):
        inputs = inputs_of(spread=spread)
        with peers.Peer("benchmarks.loss_peers", inputs=inputs) as peer:
            for on_classes, losses in enumerate(ours()):
                for name, loss in losses.items():
                    value, gradient = value_and_gradient(loss, inputs, on_classes=on_classes)
                    theirs = peer.ask("loss_value", name=name)
                    off = np.abs(gradient - theirs["gradient"]).max() / np.abs(gradient).max()
                    apart = abs(value - theirs["loss"]) / value
                    shown = [f"{value:.6f}", f"{theirs['loss']:.6f}", f"{apart:.1e}", f"{off:.1e}"]
                    rows.append([name, where, *shown])
    header = ["loss", "batch", "value", "value of PML", "relative difference", "of the gradient"]
    timing.print_table(header, rows)


if __name__ == "__main__":
    app.run(main)
