"""Circle, ArcFace, Keras' own Circle and cross-entropy on glyphs: same net, images and steps.

    python -m benchmarks.glyphs_losses --workdir=runs/glyphs_losses

Learning rate, warm-up and the classes in a batch are the recipe's: the same for losses on pairs,
and the same for those on class scores; gamma grows where ours has one. Each run is `trainers.train`
and `trainers.evaluate` on configs/glyphs.py in a process of its own. Interrupted, the same command
goes on where it stopped. Prints a Markdown table: mean and standard deviation over seeds, on
characters that were never trained on.
"""

import json
import os
import subprocess
import sys

import numpy as np
from absl import app, flags
from tqdm import tqdm

# What stands after the colon of --config=configs/glyphs.py:LOSS.
LOSSES = {
    "Circle, pair-wise": "circle",
    "Circle, class-level": "class_circle",
    "ArcFace": "arc_face",
    "keras.losses.Circle": "keras_circle",
    "cross-entropy": "cross_entropy",
}

_WORKDIR = flags.DEFINE_string("workdir", "runs/glyphs_losses", "Where the runs are kept.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each loss.", lower_bound=2)
_STEPS = flags.DEFINE_integer("steps", 800, "Steps of each run.", lower_bound=1)


def run(name, seed, *, workdir, steps):
    """Trains and evaluates one loss with one seed; the contents of its evaluation.json."""
    folder = os.path.join(workdir, f"{LOSSES[name]}-{steps}-{seed}")
    result = os.path.join(folder, "evaluation.json")
    if not os.path.exists(result):
        recipe = f"--config=configs/glyphs.py:{LOSSES[name]}"
        options = [f"--config.seed={seed}", f"--config.steps={steps}", "--config.eval_every=200"]
        _command("trainers.train", recipe, f"--workdir={folder}", *options)
        _command("trainers.evaluate", f"--workdir={folder}")
    with open(result) as stream:
        return json.load(stream)


def table(results):
    """Markdown table of `{loss: [evaluation of each seed]}`."""
    columns = {
        "one-shot accuracy": ("one_shot", "recall_at_1"),
        "R@1": ("leave_one_out", "recall_at_1"),
        "R-precision": ("leave_one_out", "r_precision"),
        "MAP@R": ("leave_one_out", "mean_average_precision_at_r"),
    }
    lines = [f"| loss | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name, runs in results.items():
        values = [[run[protocol][metric] for run in runs] for protocol, metric in columns.values()]
        cells = [f"{np.mean(seeds):.3f} ± {np.std(seeds, ddof=1):.3f}" for seeds in values]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _command(module, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"error: {module} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def main(argv):
    """Runs what is missing and prints the table."""
    del argv
    plan = [(name, seed) for seed in range(_SEEDS.value) for name in LOSSES]
    results = {name: [] for name in LOSSES}
    for name, seed in tqdm(plan, unit="run"):
        results[name].append(run(name, seed, workdir=_WORKDIR.value, steps=_STEPS.value))
    print(table(results))


if __name__ == "__main__":
    app.run(main)
