r"""The paper's three figures and its sweep of gamma and margin, from real runs here.

    python -m benchmarks.paper_figures --output=docs/pictures

`gradients.png`: the gradients of triplet loss, AM-Softmax and Circle loss over the plane of one
similarity to a positive and one to a negative. `scatter.png`: where anchors stand in that plane
before and after a training on digits, with the circle that is the decision boundary.
`histograms.png`: similarities of positive and negative pairs of unseen digits during it.
`sweep.png`: MAP@R on unseen digits for gamma 32 to 1024 and margin -0.2 to 0.3.
"""

import os

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from tqdm import tqdm

import circle_tf
from benchmarks import comparison
from circle_tf import baselines
from circle_tf.ops import pairs
from configs import digits
from trainers import datasets
from trainers.training import run_models

_OUTPUT = flags.DEFINE_string("output", "docs/pictures", "Folder for the pictures.")
_STEPS = flags.DEFINE_integer("steps", 200, "Steps of each training.", lower_bound=1)
_SEEDS = flags.DEFINE_integer("seeds", 2, "Runs of each point of the sweep.", lower_bound=1)
_MARGIN, _GAMMA = 0.25, 80.0
_GAMMAS = (32, 64, 128, 256, 512, 1024)
_MARGINS = (-0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
_POSITIVE, _NEGATIVE = "#1b7837", "#b2182b"


def pair_gradients(loss, s_n, s_p):
    """Gradients of a loss by one negative and one positive similarity.

    Args:
        loss: function of (s_n, s_p), `[N]` each, to `[N]`.
        s_n: `[N]`.
        s_p: `[N]`.

    Returns:
        `(by s_n, by s_p)`, `[N]` each.
    """
    s_n, s_p = tf.constant(s_n), tf.constant(s_p)
    with tf.GradientTape() as tape:
        tape.watch([s_n, s_p])
        value = tf.reduce_sum(loss(s_n, s_p))
    return [gradient.numpy() for gradient in tape.gradient(value, [s_n, s_p])]


def triplet(s_n, s_p):
    """`relu(s_n - s_p + m)`."""
    return tf.nn.relu(s_n - s_p + _MARGIN)


def am_softmax(s_n, s_p):
    """AM-Softmax of two classes, in units of gamma."""
    loss = baselines.AMSoftmaxLoss(_MARGIN, _GAMMA, "none")
    return loss(tf.zeros_like(s_p, tf.int64), tf.stack([s_p, s_n], axis=1)) / _GAMMA


def circle(s_n, s_p):
    """Circle loss of a positive and a negative, in units of gamma."""
    masks = tf.constant([[True, False]]), tf.constant([[False, True]])
    similarities = tf.stack([s_p, s_n], axis=1)
    shape = tf.shape(similarities)
    positives, negatives = (tf.broadcast_to(mask, shape) for mask in masks)
    options = {"margin": _MARGIN, "gamma": _GAMMA}
    return circle_tf.circle_loss(similarities, positives, negatives, **options) / _GAMMA


def draw_gradients(path):
    """Arrows down the gradient, coloured by its length."""
    grid = np.linspace(0.05, 0.95, 13)
    s_n, s_p = (axis.reshape(-1) for axis in np.meshgrid(grid, grid))
    figure, axes = _panels(3, width=3.5)
    for panel, (name, loss) in zip(
        axes, (("triplet", triplet), ("AM-Softmax", am_softmax), ("Circle", circle)), strict=True
    ):
        by_n, by_p = pair_gradients(loss, s_n, s_p)
        length = np.hypot(by_n, by_p)
        shown = panel.quiver(s_n, s_p, -by_n, -by_p, length, scale=22, width=0.006, cmap="viridis")
        shown.set_clim(0, 1.5)
        _plane(panel, name)
    figure.colorbar(shown, ax=axes, label="length of the gradient / gamma", shrink=0.85)
    figure.savefig(path, dpi=90)


def _panels(count, *, width):
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(width * count, 3.6), layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _plane(panel, title):
    panel.set(xlabel="similarity to the negative, s_n", ylabel="to the positive, s_p", title=title)
    panel.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")


def hardest(embeddings, labels):
    """Each anchor's largest similarity to a negative and smallest to a positive, `[N]` each."""
    ids = tf.constant(labels)
    positives, negatives = (mask.numpy() for mask in pairs.batch_masks(ids, ids))
    similarities = embeddings @ embeddings.T
    near = np.where(negatives, similarities, -np.inf).max(axis=1)
    return near, np.where(positives, similarities, np.inf).min(axis=1)


def draw_scatter(path, snapshots, labels):
    """Before and after, with the circle on which training lets pairs settle."""
    figure, axes = _panels(2, width=3.8)
    angles = np.linspace(np.pi / 2, np.pi, 100)
    radius = np.sqrt(2) * _MARGIN
    for panel, step in zip(axes, (min(snapshots), max(snapshots)), strict=True):
        s_n, s_p = hardest(snapshots[step], labels)
        panel.scatter(s_n, s_p, s=5, alpha=0.35, color="#2166ac", linewidths=0)
        edge = -radius * np.cos(angles), 1 - radius * np.sin(np.pi - angles)
        panel.plot(*edge, color="#1a1a1a", label="s_n² + (1 - s_p)² = 2 m²")
        _plane(panel, f"step {step}")
        panel.set(xlim=(-0.6, 1.02), ylim=(-0.6, 1.02))
        panel.legend(loc="lower left", fontsize=8, frameon=False)
    figure.suptitle("hardest positive and negative of each anchor, digits trained on", fontsize=10)
    figure.savefig(path, dpi=90)


def draw_histograms(path, snapshots, labels):
    """Similarities of all pairs, at several steps."""
    figure, axes = _panels(len(snapshots), width=2.7)
    ids = tf.constant(labels)
    masks = [mask.numpy() for mask in pairs.batch_masks(ids, ids)]
    for panel, (step, embeddings) in zip(axes, snapshots.items(), strict=True):
        similarities = embeddings @ embeddings.T
        for mask, colour, name in zip(
            masks, (_POSITIVE, _NEGATIVE), ("same digit", "other digit"), strict=True
        ):
            options = {"bins": 60, "range": (-1, 1), "density": True, "histtype": "stepfilled"}
            panel.hist(similarities[mask], color=colour, alpha=0.55, label=name, **options)
        panel.set(title=f"step {step}", xlabel="cosine", yticks=[])
    axes[0].legend(fontsize=8, frameon=False, loc="upper left")
    figure.suptitle("pairs of digits never trained on", fontsize=10)
    figure.savefig(path, dpi=90)


def trained(dataset, *, at):
    """A training on digits, looked at after some steps.

    Args:
        dataset: digits.
        at: steps, rising, the last one is the end.

    Returns:
        two dicts of step to embeddings: of what is trained on, and of the unseen.
    """
    keras.utils.set_random_seed(0)
    config = digits.get_config()
    config.loss.margin, config.loss.gamma = _MARGIN, _GAMMA
    classes = len(dataset.train.class_names)
    models = run_models.build(
        config, image_shape=dataset.image_shape, num_classes=classes, steps=at[-1]
    )
    images = dataset.train.images()
    batches = iter(
        circle_tf.pk_dataset(
            images, dataset.train.labels, classes_per_batch=5, examples_per_class=12
        )
    )
    seen, unseen, step = {}, {}, 0
    for stop in at:
        while step < stop:
            models.training.train_on_batch(*next(batches))
            step += 1
        seen[stop] = models.embedding.predict(images, verbose=0)
        unseen[stop] = models.embedding.predict(dataset.test.images(), verbose=0)
    return seen, unseen


def sweep(dataset):
    """Mean MAP@R on unseen digits, `[margins, gammas]`."""
    found = np.empty((len(_MARGINS), len(_GAMMAS)))
    data = (dataset.train.images(), dataset.train.labels)
    tests = (dataset.test.images(), dataset.test.labels)
    for place in tqdm(list(np.ndindex(found.shape)), unit="point"):
        settings = {"margin": _MARGINS[place[0]], "gamma": float(_GAMMAS[place[1]])}
        settings["learning_rate"] = digits.get_config().optimizer.learning_rate
        options = {"steps": _STEPS.value, "dataset": "digits"}
        reports = [
            comparison.train("circle", settings, *data, tests, seed=seed, **options)
            for seed in range(_SEEDS.value)
        ]
        found[place] = np.mean([report["mean_average_precision_at_r"] for report in reports])
    return found


def draw_sweep(path, found):
    """A table in colours."""
    figure, (panel,) = _panels(1, width=5.4)
    shown = panel.imshow(found, cmap="viridis", aspect="auto", origin="lower")
    panel.set_xticks(range(len(_GAMMAS)), _GAMMAS)
    panel.set_yticks(range(len(_MARGINS)), _MARGINS)
    panel.set(xlabel="gamma", ylabel="margin m", title="MAP@R on digits never trained on")
    middle = (found.min() + found.max()) / 2
    for (row, column), value in np.ndenumerate(found):
        ink = "white" if value < middle else "black"
        panel.text(column, row, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
    figure.colorbar(shown, ax=panel)
    figure.savefig(path, dpi=90)


def main(_):
    """Draws all four."""
    tf.get_logger().setLevel("ERROR")  # Each of many models is traced anew, as it must be.
    os.makedirs(_OUTPUT.value, exist_ok=True)
    dataset = datasets.load(digits.get_config().dataset)
    path = lambda name: os.path.join(_OUTPUT.value, f"{name}.png")  # noqa: E731
    draw_gradients(path("gradients"))
    steps = [0, _STEPS.value // 8, _STEPS.value // 2, _STEPS.value]
    seen, unseen = trained(dataset, at=steps)
    draw_scatter(path("scatter"), seen, dataset.train.labels)
    draw_histograms(path("histograms"), unseen, dataset.test.labels)
    found = sweep(dataset)
    draw_sweep(path("sweep"), found)
    print(
        "\n".join(
            f"m {m:>4}: " + " ".join(f"{v:.3f}" for v in r)
            for m, r in zip(_MARGINS, found, strict=True)
        )
    )
    print(f"Drew gradients, scatter, histograms and sweep in {_OUTPUT.value}.")


if __name__ == "__main__":
    app.run(main)
