"""Searches for a recipe's numbers on parts of the training classes; writes the best as a recipe.

    python -m trainers.tune --config=configs/glyphs.py --workdir=runs/tune_glyphs --trials=20
    python -m trainers.tune --config=configs/folder.py --config.dataset.path=photos \
        --workdir=runs/tune_photos --search=loss.gamma=16:256:log \
        --search=batch.examples_per_class=2,4,8

Each setting is trained once for every fold, without the classes of that fold, and judged on them;
the test classes are left alone. What is behind the median of the others after a fold is given up.
The same command goes on with a search that was stopped, more --trials with one that has ended.
Writes best.py, which trainers.train --config takes, trials.csv and trials.png.
"""

import sys

from absl import flags
from ml_collections import config_flags

from circle_tf.utils import command_lines, quiet
from trainers.cli import commands

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: a file in configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the files of the search.")
_TRIALS = flags.DEFINE_integer("trials", 20, "Settings to try in all.", lower_bound=1)
_FOLDS = flags.DEFINE_integer("folds", 3, "Parts of the training classes.", lower_bound=2)
_PROCESSES = flags.DEFINE_integer("processes", 1, "Trainings at a time.", lower_bound=1)
_SEARCH = flags.DEFINE_multi_string(
    "search",
    [],
    "FIELD=LOW:HIGH, FIELD=LOW:HIGH:log or FIELD=VALUE,VALUE; default: the learning rate, and "
    "margin and gamma around the loss's published values.",
)
_METRIC = flags.DEFINE_string("metric", "", "What decides; default: keep_best of the recipe.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the search.", lower_bound=0)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    """Searches, and says what to do next."""
    del argv
    config, _ = commands.recipe(_CONFIG)
    quiet.import_tensorflow(log_level=3)
    from trainers.evaluation import metrics
    from trainers.tuning import spaces, study

    metric = _METRIC.value or config.keep_best or metrics.VALIDATED[0]
    if metric not in metrics.VALIDATED:
        raise commands.ConfigError(
            f"--metric must be one of {', '.join(metrics.VALIDATED)}; found {metric!r}."
        )
    space = dict(spaces.parse(text, config) for text in _SEARCH.value)
    try:
        best = study.tune(
            config,
            workdir=_WORKDIR.value,
            space=space or spaces.usual(config.loss.name),
            trials=_TRIALS.value,
            folds=_FOLDS.value,
            processes=_PROCESSES.value,
            metric=metric,
            seed=_SEED.value,
        )
    except KeyboardInterrupt:
        again = command_lines.python_module("trainers.tune", *sys.argv[1:])
        print(f"Go on: {again}", file=sys.stderr)
        raise
    print(f"The best recipe is {best}; all trials: trials.csv and trials.png beside it.")
    options = f"--config={best}", "--workdir=runs/tuned"
    print(f"Next: {command_lines.python_module('trainers.train', *options)}")


if __name__ == "__main__":
    commands.run(main)
