r"""Every loss on the same ground, its settings searched with the same budget: a fair comparison.

    python -m benchmarks.reality_check --dataset=digits --workdir=runs/reality_check
    python -m benchmarks.reality_check --dataset=glyphs --steps=800 --workdir=runs/reality_check
    python -m benchmarks.reality_check --dataset=glyphs --steps=800 --losses=circle,unified
    python -m benchmarks.reality_check --dataset=glyphs --steps=800 --precision=mixed_bfloat16

Net, optimiser, steps and examples in a batch are the same for all; on glyphs losses on class scores
have 128 x 1 and a longer warm-up where losses on pairs have 32 x 4, as each kind is best with
(docs/benchmarks/quality.md). Learning rate, margin and gamma of each loss are chosen among --budget
draws by MAP@R on folds of training classes that it was not trained on: all on the first fold, the
better half of those left on the next. Then --seeds runs on all training classes are judged on
classes never seen. Each result is kept in a line of results.jsonl as soon as it is there:
interrupted, the same command goes on. Prints a Markdown table with 95 % intervals and draws it.

After Musgrave et al., "A Metric Learning Reality Check", ECCV 2020.
"""

import os

from absl import app, flags
from tqdm import tqdm

from benchmarks import comparison, timing

_DATASET = flags.DEFINE_enum("dataset", "digits", ["digits", "glyphs"], "Data set.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reality_check", "Where results are kept.")
_STEPS = flags.DEFINE_integer("steps", 100, "Steps of each run.", lower_bound=1)
_BUDGET = flags.DEFINE_integer("budget", 4, "Settings tried of each loss.", lower_bound=1)
_FOLDS = flags.DEFINE_integer("folds", 2, "Folds of training classes.", lower_bound=2)
_SEARCHED = flags.DEFINE_integer(
    "searched_folds", None, "On how many of the folds; default: all.", lower_bound=1
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "Runs of the chosen settings.", lower_bound=2)
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", ["float32", "mixed_bfloat16"], "Policy of the net's layers."
)
_LOSSES = flags.DEFINE_list("losses", None, "Names of losses; default: all.")


def main(_):
    """Runs what is missing, prints the table, draws it."""
    import tensorflow as tf

    from trainers import datasets

    tf.get_logger().setLevel("ERROR")  # Each of many models is traced anew, as it must be.
    config = comparison.recipe(_DATASET.value)
    dataset = datasets.load(config.dataset)
    names = ("dataset", "steps", "budget", "folds", "seeds", "precision")
    options = {name: flags.FLAGS[name].value for name in names}
    options["searched_folds"] = min(_SEARCHED.value or _FOLDS.value, _FOLDS.value)
    losses = _LOSSES.value or list(comparison.SPACES)
    results = comparison.Results(os.path.join(_WORKDIR.value, _DATASET.value, "results.jsonl"))
    searched = comparison.runs_of_search(budget=_BUDGET.value, folds=options["searched_folds"])
    found, total = {}, len(losses) * (searched + _SEEDS.value)
    with tqdm(total=total, unit="run") as bar:
        for loss in losses:
            bar.set_description(loss)
            settings = comparison.choose(
                results, loss, dataset.train, options=options, tell=bar.update
            )
            reports = comparison.judge(
                results, loss, settings, dataset, options=options, tell=bar.update
            )
            found[loss] = (settings, reports)
    timing.print_table(["loss", "chosen", *comparison.METRICS], comparison.rows(found))
    picture = os.path.join(_WORKDIR.value, _DATASET.value, "comparison.png")
    comparison.draw(
        picture, found, title=f"{_DATASET.value}, {_STEPS.value} steps, {_SEEDS.value} seeds"
    )
    print(f"Drew {picture}.")


if __name__ == "__main__":
    app.run(main)
