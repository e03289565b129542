"""Wrong uses, each of which a type checker must report; read by one, never run.

A use that is not reported any more makes its `type: ignore` useless, which is an error itself.
"""

import numpy as np

import circle_tf
from circle_tf import run_files

rows = np.eye(4)
ids = [0, 0, 1, 1]


def names_that_are_not_there() -> None:
    circle_tf.CircelLoss()  # type: ignore[attr-defined]
    circle_tf.addons.optimizers.LAMB()  # type: ignore[attr-defined]
    circle_tf.plots.similarity_plot()  # type: ignore[attr-defined]
    circle_tf.CircleLoss(scale=64)  # type: ignore[call-arg]
    circle_tf.retrieval_report(rows, ids, k=1)  # type: ignore[call-arg]


def arguments_missing_or_misplaced() -> None:
    circle_tf.CosineClassifier()  # type: ignore[call-arg]
    circle_tf.circle_loss(rows, rows > 0, rows < 0)  # type: ignore[call-arg]
    circle_tf.PKSampler(ids, 2, 2)  # type: ignore[call-arg]
    circle_tf.recall_at_k(rows)  # type: ignore[call-arg]


def values_of_another_type() -> None:
    circle_tf.CircleLoss(margin="0.4")  # type: ignore[arg-type]
    circle_tf.CircleLoss(reduction="average")  # type: ignore[arg-type]
    circle_tf.CircleLoss(block_size="all")  # type: ignore[arg-type]
    circle_tf.UnitEmbedding(32.0)  # type: ignore[arg-type]
    circle_tf.CircleHead(10, shards="devices")  # type: ignore[arg-type]
    circle_tf.baselines.TripletLoss(mining="easy")  # type: ignore[arg-type]
    circle_tf.EmbeddingModel().compile(jit_compile="on")  # type: ignore[arg-type]
    circle_tf.metrics.monitors(margin=None)  # type: ignore[arg-type]
    circle_tf.recall_at_k(None, ids)  # type: ignore[arg-type]
    circle_tf.retrieval_report(rows, ids, ks="1")  # type: ignore[arg-type]
    circle_tf.tar_at_far(rows[0], rows[0] > 0, [0.1, 0.01])  # type: ignore[arg-type]
    circle_tf.pk_dataset(rows, ids, classes_per_batch="2", examples_per_class=2)  # type: ignore[arg-type]
    circle_tf.RetrievalCallback(rows, ids, every=0.5)  # type: ignore[arg-type]
    circle_tf.DiagnosticsCallback(rows, ids, embed=rows)  # type: ignore[arg-type]
    circle_tf.Gallery(rows, None)  # type: ignore[arg-type]
    circle_tf.save_servable(None, 1)  # type: ignore[arg-type]
    circle_tf.backbones.build("conv4", 28)  # type: ignore[arg-type]
    circle_tf.plots.similarity_scatter(rows, labels=ids, margin=0.4, pairs="all")  # type: ignore[arg-type]
    run_files.RunFiles(None)  # type: ignore[arg-type]


def results_that_are_something_else() -> None:
    circle_tf.recall_at_k(rows, ids)["recall_at_1"]  # type: ignore[index]
    print(circle_tf.retrieval_report(rows, ids).recall_at_1)  # type: ignore[attr-defined]
    print(circle_tf.nearest_neighbours(rows).shape)  # type: ignore[attr-defined]
    circle_tf.Gallery(rows, ids).dim()  # type: ignore[operator]
