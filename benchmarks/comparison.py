"""The pieces of `benchmarks.reality_check`: what is searched; how runs are made, kept, judged."""

import json
import math
import os

import numpy as np

from circle_tf.utils import files
from configs import digits, glyphs
from trainers.tuning import spaces

__all__ = [
    "METRICS",
    "RATES",
    "SPACES",
    "Results",
    "choose",
    "draw",
    "draws",
    "folds",
    "interval",
    "judge",
    "recipe",
    "rows",
    "runs_of_search",
    "train",
]

_ALIKE = ("keras_circle", "circle_head")  # In value the same as others.
# Of 800 steps and a thousand classes the lowest is too low for nearly all.
RATES = {"digits": (3e-4, 1e-3, 3e-3), "glyphs": (1e-3, 3e-3)}
# A scale may grow from a low one, which helps every loss that has one (docs/benchmarks/quality.md).
_STARTS = {"gamma_start": (None, 4.0)}
# What may be drawn beside the learning rate; the published values are among each.
SPACES = {
    name: {**space, **(_STARTS if "gamma" in space else {})}
    for name, space in spaces.PUBLISHED.items()
    if name not in _ALIKE
}
METRICS = {
    "MAP@R": "mean_average_precision_at_r",
    "R@1": "recall_at_1",
    "R-precision": "r_precision",
}


def recipe(dataset, loss="circle"):
    """A fresh recipe of `digits` or `glyphs`, with the batches that suit the loss there."""
    if dataset == "glyphs":
        return glyphs.get_config(loss)
    config = digits.get_config()
    config.loss.name = loss
    config.batch.update(classes_per_batch=2, examples_per_class=16)  # A fold has two classes.
    return config


def draws(loss, *, budget, rates):
    """The settings tried of a loss: the same number for each, the same ones each time.

    Drawn as a Latin hypercube is (McKay et al., Technometrics 1979).

    Args:
        loss: name, a key of `SPACES`.
        budget: int.
        rates: learning rates to draw from.

    Returns:
        list of dicts with `learning_rate` and what `SPACES` has.
    """
    random = np.random.default_rng(sorted(SPACES).index(loss))
    space = {"learning_rate": rates, **SPACES[loss]}
    budget = min(budget, math.prod(map(len, space.values())))
    while True:
        columns = []
        for values in space.values():
            # All of its values come before one comes again: few draws cover each number's range.
            rounds = [random.permutation(len(values)) for _ in range(-(-budget // len(values)))]
            columns.append([values[at] for at in np.concatenate(rounds)[:budget]])
        drawn = list(zip(*columns, strict=True))
        if len(set(drawn)) == budget:
            return [dict(zip(space, settings, strict=True)) for settings in drawn]


def folds(labels, *, count):
    """Class-disjoint folds.

    Args:
        labels: `[N]` int.
        count: int, how many.

    Returns:
        list of `[N]` bool: which examples are to validate on.
    """
    classes = np.random.default_rng(0).permutation(np.unique(labels))
    return [np.isin(labels, part) for part in np.array_split(classes, count)]


class Results:
    """Lines of JSON by key, kept as they come.

    Args:
        path: file; a last line that was cut short is left out and run again.
    """

    def __init__(self, path):
        self._path, self._found = path, {}
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as lines:
                for line in lines:
                    if line.endswith("\n"):
                        entry = json.loads(line)
                        self._found[entry["key"]] = entry["report"]
            self._rewrite()

    def get(self, key, make):
        """The result of a key; `make()` makes one that is not there."""
        if key not in self._found:
            self._found[key] = make()
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(_line(key, self._found[key]))
        return self._found[key]

    def _rewrite(self):
        with files.replacing(self._path) as partial, open(partial, "w", encoding="utf-8") as stream:
            stream.writelines(_line(key, report) for key, report in self._found.items())


def _line(key, report):
    return json.dumps({"key": key, "report": report}) + "\n"


def train(loss, settings, images, labels, tests, *, steps, seed, dataset, precision):
    """Trains one model and judges it.

    Args:
        loss: name.
        settings: dict with `learning_rate`, and `margin` and `gamma` where the loss has them.
        images: `[N, H, W, C]` uint8 to train on.
        labels: `[N]` int.
        tests: (images, labels) of other classes.
        steps: int.
        seed: int.
        dataset: name of the recipe.
        precision: name of the dtype policy.

    Returns:
        dict of floats: `retrieval_report` of leave-one-out.
    """
    import keras

    import circle_tf
    from trainers.training import run_models

    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision)  # Not before: the session that is cleared has it.
    keras.utils.set_random_seed(seed)
    config = recipe(dataset, loss)
    config.loss.update(margin=None, gamma=None, gamma_start=None)
    config.loss.update({name: settings[name] for name in SPACES[loss]})
    config.optimizer.learning_rate = settings["learning_rate"]
    config.optimizer.warmup_steps = config.optimizer.warmup_steps * steps // config.steps
    ids = np.unique(labels, return_inverse=True)[1]
    models = run_models.build(
        config, image_shape=images.shape[1:], num_classes=int(ids.max()) + 1, steps=steps
    )
    batches = circle_tf.pk_dataset(images, ids, **config.batch, seed=seed)
    models.training.fit(batches, epochs=1, steps_per_epoch=steps, shuffle=False, verbose=0)
    embeddings = models.embedding.predict(tests[0], batch_size=256, verbose=0)
    return circle_tf.retrieval_report(embeddings, tests[1])


def runs_of_search(*, budget, folds):
    """How many runs `choose` makes of a loss."""
    return sum(math.ceil(budget / 2**fold) for fold in range(folds))


def choose(results, loss, split, *, options, tell):
    """The settings with the highest mean MAP@R over folds of training classes.

    All settings are tried on the first fold, on each fold after it the better half of those left
    (successive halving: Jamieson and Talwalkar, AISTATS 2016).
    """
    left = draws(loss, budget=options["budget"], rates=RATES[options["dataset"]])
    scores = [[] for _ in left]
    held_out = folds(split.labels, count=options["folds"])[: options["searched_folds"]]
    for number, held in enumerate(held_out):
        trained, tested = np.flatnonzero(~held), np.flatnonzero(held)
        tests = (split.images(tested), split.labels[tested])
        data = (split.images(trained), split.labels[trained], tests)
        for settings, found in zip(left, scores, strict=True):
            key = _key("search", loss, settings, number, options)
            report = results.get(key, lambda d=data, s=settings: _run(loss, s, d, options, seed=0))
            found.append(report[METRICS["MAP@R"]])
            tell()
        best = np.argsort([-np.mean(found) for found in scores])[: math.ceil(len(left) / 2)]
        left, scores = [left[at] for at in best], [scores[at] for at in best]
    return left[0]


def judge(results, loss, settings, dataset, *, options, tell):
    """Reports of the chosen settings on classes never seen, one for each seed."""
    reports = []
    train_split, test = dataset.train, dataset.test
    data = (train_split.images(), train_split.labels, (test.images(), test.labels))
    for seed in range(options["seeds"]):
        key = _key("final", loss, settings, seed, options)
        reports.append(results.get(key, lambda s=seed: _run(loss, settings, data, options, seed=s)))
        tell()
    return reports


def _key(kind, loss, settings, number, options):
    return json.dumps(
        [kind, loss, settings, number, options["steps"], options["precision"]], sort_keys=True
    )


def _run(loss, settings, data, options, *, seed):
    kept = {name: options[name] for name in ("steps", "dataset", "precision")}
    report = train(loss, settings, *data, seed=seed, **kept)
    return {name: float(value) for name, value in report.items()}


def interval(values):
    """Mean, and half the width of its 95 % interval by Student's t."""
    from scipy import stats

    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return float(np.mean(values)), float(half)


def rows(found):
    """Rows of the table, the highest MAP@R first.

    Args:
        found: dict of loss to (settings, reports).

    Returns:
        list of lists of str.
    """
    table = []
    for loss, (settings, reports) in found.items():
        cells = [interval([report[name] for report in reports]) for name in METRICS.values()]
        shown = ", ".join(
            f"{name} {value:g}" for name, value in settings.items() if value is not None
        )
        table.append([cells[0][0], loss, shown, *(f"{m:.3f} ± {h:.3f}" for m, h in cells)])
    return [row[1:] for row in sorted(table, reverse=True)]


def draw(path, found, *, title):
    """Draws means and intervals of MAP@R to a PNG."""
    import matplotlib.figure

    values = {
        loss: interval([r[METRICS["MAP@R"]] for r in reports])
        for loss, (_, reports) in found.items()
    }
    order = sorted(values, key=lambda loss: values[loss][0])
    figure = matplotlib.figure.Figure(figsize=(7, 0.34 * len(order) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, loss in enumerate(order):
        mean, half = values[loss]
        colour = "#1b7837" if "circle" in loss else "#4a4a4a"
        axes.errorbar(mean, place, xerr=half, fmt="o", color=colour, capsize=3, markersize=5)
    axes.set_yticks(range(len(order)), [loss.replace("_", " ") for loss in order])
    axes.set_xlabel("MAP@R on classes never seen, mean and 95 % interval")
    axes.set_title(title, fontsize=11)
    axes.grid(axis="x", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
