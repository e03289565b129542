r"""What raises the quality of embeddings at equal cost: switches of a recipe, alone and together.

    python -m benchmarks.switches --dataset=glyphs --labels=pairs --workdir=runs/switches
    python -m benchmarks.switches --dataset=glyphs --labels=classes --workdir=runs/switches

Each run is an ordinary one of `trainers.train` that holds out a fold of the training classes. Run
number i of every switch has seed i and fold i, so that differences to none of them are of pairs.
The test classes are never looked at. Interrupted, the same command goes on. Prints a Markdown
table: MAP@R of the classes held out, and the mean difference with its 95 % interval.
"""

import os
import shutil

from absl import app, flags
from tqdm import tqdm

from benchmarks import comparison, timing

_METRIC = "val_mean_average_precision_at_r"
_FOLDS = {"glyphs": 3, "digits": 2}  # Digits has five classes to train on.
_RATES = {"glyphs": 2e-3, "digits": 1e-3}  # Of both kinds: rows differ by one switch.


def _growing(start):
    return {"loss.gamma_start": start}


# Given here as shares of the steps.
_SHARES = ("optimizer.warmup_steps", "loss.memory_start_step", "eval_every")
_SHARES += ("hard_classes.start", "hard_classes.every")
# Of both kinds.
_COMMON = {
    "averaged weights": {"optimizer.ema_momentum": 0.99},
    "dropout 0.2": {"model.dropout": 0.2},
    "warm-up of a quarter": {"optimizer.warmup_steps": 0.25},
    "twice the classes of half the examples": {"batch": (2.0, 0.5)},
    "hard classes in groups of 4": {
        "hard_classes.group_size": 4,
        "hard_classes.start": 0.25,
        "hard_classes.every": 0.25,
        "eval_every": 0.25,
    },
}
_LOSSES = {"pairs": ("circle", 80.0), "classes": ("class_circle", 64.0)}
SWITCHES = {
    "pairs": {
        "none of them": {},
        "gamma from 16": _growing(16.0),
        "gamma from 4": _growing(4.0),
        "memory of 1024 from a quarter on": {
            "loss.memory_size": 1024,
            "loss.memory_start_step": 0.25,
        },
        "class-level loss beside, weight 0.2": {"loss.class_level_weight": 0.2},
        "class-level loss beside, weight 1": {"loss.class_level_weight": 1.0},
        **_COMMON,
    },
    "classes": {
        "none of them": {},
        "gamma from 4": _growing(4.0),
        "gamma from 1": _growing(1.0),
        "gamma from 4 and a warm-up of a quarter": {
            **_growing(4.0),
            "optimizer.warmup_steps": 0.25,
        },
        "the same and twice the classes of half the examples": {
            **_growing(4.0),
            "optimizer.warmup_steps": 0.25,
            "batch": (2.0, 0.5),
        },
        "the same and four times the classes of a quarter of the examples": {
            **_growing(4.0),
            "optimizer.warmup_steps": 0.25,
            "batch": (4.0, 0.25),
        },
        "label smoothing 0.1": {"loss.label_smoothing": 0.1},
        "class weights 10 times faster": {"optimizer.class_rate_factor": 10.0},
        "3 sub-centres": {"loss.sub_centers": 3},
        **_COMMON,
    },
}


# A fold of digits has two classes to train on: all of each batch.
_OF_MANY_CLASSES = (
    "twice the classes of half the examples",
    "the same and twice the classes of half the examples",
    "the same and four times the classes of a quarter of the examples",
    "hard classes in groups of 4",
)


def switches(dataset, labels):
    """What is tried: names to overrides, first of all nothing."""
    found = SWITCHES[labels]
    if dataset == "digits":
        found = {name: values for name, values in found.items() if name not in _OF_MANY_CLASSES}
    return found


def recipe(dataset, labels, switch, *, number, steps):
    """The recipe of one run.

    Args:
        dataset: `digits` or `glyphs`.
        labels: `pairs` or `classes`.
        switch: dict of a field to its value; `batch` multiplies P and K, and what counts steps is a
            share of them.
        number: int, of the run: its seed and fold.
        steps: int.

    Returns:
        ml_collections.ConfigDict.
    """
    config = comparison.recipe(dataset)
    name, gamma = _LOSSES[labels]
    config.loss.update(name=name, margin=0.25, gamma=gamma, gamma_start=None)
    times_classes, times_examples = switch.get("batch", (1, 1))
    config.batch.classes_per_batch = int(config.batch.classes_per_batch * times_classes)
    config.batch.examples_per_class = int(config.batch.examples_per_class * times_examples)
    config.optimizer.learning_rate = _RATES[dataset]
    config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, steps // 10)
    config.dataset.folds = _FOLDS[dataset]
    config.dataset.fold = number % _FOLDS[dataset]
    config.seed, config.steps, config.keep_best = number, steps, ""
    config.eval_every = config.checkpoint_every = steps
    config.eval_examples = 12_000
    config.update_from_flattened_dict(
        {
            field: round(value * steps) if field in _SHARES else value
            for field, value in switch.items()
            if field != "batch"
        }
    )
    return config


def score(config, folder):
    """MAP@R of the classes held out, after training; at once where the run has finished."""
    import keras

    from trainers.outputs import workdir as workdirs
    from trainers.training import loop

    keras.backend.clear_session()
    files = loop.train(config, workdir=folder)
    shutil.rmtree(files.checkpoints, ignore_errors=True)  # Finished: nothing to go on from.
    return float(workdirs.MetricsLog(files.metrics).records()[-1][_METRIC])


def rows(scores):
    """Rows of the table, the best first.

    Args:
        scores: dict of a switch to its runs' scores, first of all of none.

    Returns:
        list of lists of str.
    """
    usual, *_ = scores.values()
    table = []
    for name, found in scores.items():
        mean, _ = comparison.interval(found)
        gain, half = comparison.interval([a - b for a, b in zip(found, usual, strict=True)])
        told = f"{gain:+.3f} ± {half:.3f}" if found is not usual else ""
        table.append([mean, name, f"{mean:.3f}", told, *(f"{value:.3f}" for value in found)])
    return [row[1:] for row in sorted(table, reverse=True)]


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_enum("dataset", "glyphs", ["glyphs", "digits"], "Data set.")
    flags.DEFINE_enum("labels", "pairs", ["pairs", "classes"], "Kind of labels.")
    flags.DEFINE_string("workdir", "runs/switches", "Where the runs are kept.")
    flags.DEFINE_integer("steps", 300, "Steps of each run.", lower_bound=2)
    flags.DEFINE_integer("seeds", 3, "Runs of each switch.", lower_bound=2)
    flags.DEFINE_list("only", None, "Names of switches; default: all.")


def main(_):
    """Runs what is missing and prints the table."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")  # Each of many models is traced anew, as it must be.
    options = flags.FLAGS
    known = switches(options.dataset, options.labels)
    if unknown := set(options.only or ()) - set(known):
        raise app.UsageError(f"--only wants names of {', '.join(known)}; found {min(unknown)!r}.")
    names = list(known)[:1] + (options.only or list(known)[1:])
    scores = {name: [] for name in names}
    plan = [(number, name) for number in range(options.seeds) for name in names]
    for number, name in tqdm(plan, unit="run"):
        config = recipe(
            options.dataset, options.labels, known[name], number=number, steps=options.steps
        )
        place = "-".join([options.dataset, options.labels, str(options.steps)])
        folder = os.path.join(options.workdir, place, name.replace(" ", "_"), str(number))
        scores[name].append(score(config, folder))
    numbers = [f"run {number}" for number in range(options.seeds)]
    timing.print_table(["switch", "MAP@R", "difference", *numbers], rows(scores))


if __name__ == "__main__":
    define_flags()
    app.run(main)
