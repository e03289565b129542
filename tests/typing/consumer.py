"""What a user's typed code does with each public name; read by a type checker, never run."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import assert_type

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import circle_tf
from circle_tf import run_files

rng = np.random.default_rng(0)
rows: np.ndarray = rng.normal(size=(8, 4)).astype(np.float32)
images: np.ndarray = rng.normal(size=(8, 16, 16, 3))
ids = [0, 0, 1, 1, 2, 2, 3, 3]
same = np.array([True, False])
path = pathlib.Path("somewhere")
model: keras.Model = keras.Sequential([circle_tf.UnitEmbedding(32, use_bias=False, name="unit")])


def losses() -> list[keras.losses.Loss]:
    value = circle_tf.circle_loss([[0.5, 0.1]], [[True, False]], [[False, True]], margin=0, gamma=8)
    also = circle_tf.CircleLoss(margin=0.4, gamma=80)(ids, tf.constant(rows), sample_weight=rows[0])
    keras.losses.Loss().call(value, also)
    return [
        circle_tf.CircleLoss(0.4, 80.0, "mean", detach_weights=False, block_size=None),
        circle_tf.CircleLoss(block_size="auto", name="mine"),
        circle_tf.ClassCircleLoss(reduction="none", one_hot=True, check_finite=True),
        circle_tf.ClassCircleLoss(label_smoothing=0.1),
        circle_tf.CrossBatchCircleLoss(1024, 0.4, 80, start_step=10),
        circle_tf.baselines.TripletLoss(0.2, "hard", soft=True),
        circle_tf.baselines.MultiSimilarityLoss(epsilon=None),
        circle_tf.baselines.ArcFaceLoss(gamma=tf.Variable(64.0), margin=lambda step: 0.5),
        circle_tf.CircleLoss(gamma=circle_tf.schedules.GeometricGrowth(16, 80, steps=700)),
        circle_tf.ClassCircleLoss(gamma=keras.Variable(64.0)).follow(keras.optimizers.SGD()),
        circle_tf.addons.losses.TripletSemiHardLoss(distance_metric="angular"),
        circle_tf.addons.losses.TripletHardLoss(distance_metric=lambda embeddings: embeddings),
    ]


def layers() -> list[keras.layers.Layer]:
    head = circle_tf.CircleHead(1000, sample_rate=0.1, shards="replicas", dtype="float32")
    optimizer = head.prepare_optimizer(circle_tf.addons.optimizers.LazyAdam(1e-3))
    optimizer.build(head.trainable_variables)
    return [
        circle_tf.CosineClassifier(1000, sub_centers=3, name="classes"),
        circle_tf.CrossBatchMemory(512, as_model_loss=True, loss_weight=0.5),
        circle_tf.PairwiseCircle(block_size=256),
        circle_tf.CircleHead(10, product_dtype="bfloat16", fused_update=True),
    ]


def training() -> None:
    embedding = circle_tf.EmbeddingModel(model.input, model.output, name="embedding")
    embedding.compile(
        "adam",
        losses()[0],
        jit_compile="auto",
        gradient_accumulation=2,
        cached_gradient_batch=None,
        learning_rate_factors={"classes": 10.0},
        metrics=circle_tf.metrics.monitors(margin=0.4, labels="class"),
    )
    sampler = circle_tf.PKSampler(ids, classes_per_batch=2, examples_per_class=2, seed=1)
    assert_type(sampler.batch_size, int)
    assert_type(sampler(0), np.ndarray)
    batches = circle_tf.pk_dataset(images, ids, classes_per_batch=2, examples_per_class=2)
    circle_tf.pk_dataset(
        circle_tf.RecordFiles(["a.tfrecord", path]),
        np.array(ids),
        classes_per_batch=2,
        examples_per_class=2,
        decode=tf.io.decode_jpeg,
        augment=lambda batch, seed: batch,
        part=(0, 2),
        nearest_classes=circle_tf.nearest_classes(rows, ids, 2, chunk_size=2),
        group_size=2,
    )
    callbacks = [
        circle_tf.RetrievalCallback(images, ids, ks=(1, 5), model=model),
        circle_tf.callbacks.DiagnosticsCallback(images, ids, tell=lambda message: None),
        circle_tf.DiagnosticsCallback(images, ids, embed=model.predict),
        circle_tf.fine_tuning.FineTuning(
            model, freeze_steps=100, unfreeze_from=0.5, layer_decay=0.8
        ),
        circle_tf.addons.callbacks.StochasticWeightAveraging(100, average_period=10),
    ]
    cached = circle_tf.fine_tuning.cache_features(model, images, path, keys=None, batch_size=8)
    assert_type(cached, np.ndarray)
    embedding.fit(batches, epochs=2, callbacks=callbacks, verbose=0)
    embedding.save("model.keras")


def evaluation() -> list[float]:
    assert_type(circle_tf.retrieval_report(rows, ids, ks=1), dict[str, float])
    assert_type(circle_tf.reidentification_report(rows, ids, rows, ids), dict[str, float])
    found, similarities = circle_tf.nearest_neighbours(tf.constant(rows), 3, chunk_size=2)
    pairs = circle_tf.pair_similarities(rows[:2], rows[2:4])
    of_templates, embeddings = circle_tf.template_embeddings(rows, ids, ids)
    for report in (
        circle_tf.template_report(of_templates, embeddings, [0, 1], [2, 3], same, rule="nearest"),
        circle_tf.verification_report(pairs, same, folds=2, fars=[0.1, 0.01]),
        circle_tf.distractor_identification(rows, ids, rows, ks=[1, 10]),
        circle_tf.detection_and_identification_rate(rows, ids, rows, ids, fars=0.1),
    ):
        print(report["pairs"] + 1)
    decision = circle_tf.calibrate(rows, ids, false_accept_rates=[0.1, 0.01], resamples=10)
    assert_type(decision, circle_tf.Calibration)
    first: circle_tf.Threshold = decision.verification[0]
    circle_tf.plots.decision_thresholds(rows, ids, decision)
    print(first.threshold + 1, circle_tf.Calibration.from_dict(decision.as_dict()).table())
    inspection: circle_tf.LabelInspection = circle_tf.inspect_labels(rows, ids, neighbours=2)
    suspect: circle_tf.Suspect = inspection.suspects[0]
    confusion: circle_tf.Confusion = inspection.confusions[0]
    print(suspect.row + 1, suspect.score + 0.5, confusion.share + 0.5)
    distances = circle_tf.k_reciprocal_distances(rows, rows, k1=4, k2=2, weight=0.3)
    print(
        circle_tf.flip_test_embeddings(model.predict, images).shape,
        found.shape,
        similarities.mean(),
    )
    print(circle_tf.k_fold_accuracy(pairs, same, folds=2).mean())
    return [
        circle_tf.recall_at_k(rows, ids, 1, gallery=rows, gallery_labels=ids),
        circle_tf.precision_at_1(rows, ids),
        circle_tf.r_precision(rows.tolist(), ids),
        circle_tf.mean_average_precision_at_r(rows, ids),
        circle_tf.retrieval.recall_at_k(rows, ids, 2),
        circle_tf.normalized_mutual_information(rows, ids, clusters=3),
        circle_tf.cmc(rows, ids, rows, ids, 5, distances=distances),
        circle_tf.tar_at_far(pairs, same, 1e-3),
    ]


def serving() -> str:
    gallery = circle_tf.Gallery(rows, ["a", "b"], classes=["x", "y"])
    gallery.save(path / "gallery.npz")
    assert_type(circle_tf.Gallery.load("gallery.npz"), circle_tf.Gallery)
    assert_type(gallery.dim + len(gallery), int)
    return circle_tf.save_servable(
        model,
        path / "1",
        image_shape=(16, 16, 3),
        signatures=["serving_default", "search"],
        gallery=gallery,
        weights="float16",
    )


def the_rest() -> Figure:
    backbone: Callable[..., keras.Model] = circle_tf.backbones.build
    backbone("conv4", (28, 28, 1), pooling="flatten", weights=os.fspath(path))
    backbone("conv4", (28, 28, 1), pooling="generalized_mean", partial_weights=True)
    assert_type(circle_tf.backbones.names(), list[str])
    circle_tf.backbones.GeneralizedMean(2.0, epsilon=1e-5, name="features")
    assert_type(circle_tf.records.write_index(path), str)
    assert_type(circle_tf.__version__, str)
    run = run_files.RunFiles("runs/glyphs")
    best: Mapping[str, object] = run_files.read_best(run)
    print(best, run.is_finished, run.suggested_base_path.upper())
    circle_tf.plots.write_projector(path, rows, labels=ids, class_names=["a", "b", "c", "d"])
    figure = circle_tf.plots.similarity_scatter(rows, labels=ids, margin=0.25, pairs="hardest")
    circle_tf.plots.save_png(figure, path / "scatter.png", dpi=100)
    return circle_tf.plots.training_curves([{"step": 1, "loss": 80.0}])
