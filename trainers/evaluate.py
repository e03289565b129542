"""Evaluates a finished run on classes it has never seen.

    python -m trainers.evaluate --workdir=runs/glyphs
    python -m trainers.evaluate --workdir=runs/glyphs --best
    python -m trainers.evaluate --workdir=runs/market1501 --rerank
    python -m trainers.evaluate --workdir=runs/face --pairs=lfw.bin --pairs=cfp_fp.bin
    python -m trainers.evaluate --workdir=runs/omniglot --one_shot_runs=all_runs
    python -m trainers.evaluate --workdir=runs/face --ijbc=IJBC
    python -m trainers.evaluate --workdir=runs/face --probes=facescrub --distractors=megaface

Prints a table, and writes it to evaluation.json beside pictures: a sheet of queries with what they
found, and the scores that thresholds decide by.
"""

from absl import flags

from circle_tf.utils import command_lines, quiet
from trainers.cli import commands

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory of the run.")
_BEST = flags.DEFINE_bool("best", False, "The model that was best in training, not the last.")
_RERANK = flags.DEFINE_bool("rerank", False, "Re-identification: rank anew as well.")
_PAIRS = flags.DEFINE_multi_string(
    "pairs", [], "Verification sets: .bin files, or folders of LFW with pairs.txt."
)
_ONE_SHOT_RUNS = flags.DEFINE_string(
    "one_shot_runs", "", "Folder of Omniglot's runs of one-shot classification (run01, ...)."
)
_RATES = flags.DEFINE_list(
    "false_accept_rates",
    ["0.01", "0.001"],
    "How seldom to say 'the same' or 'known' wrongly: thresholds are found for each rate.",
)
_IJBC = flags.DEFINE_string("ijbc", "", "Folder of IJB-C: verification of templates.")
_PROBES = flags.DEFINE_string("probes", "", "Folder per person, to identify among distractors.")
_DISTRACTORS = flags.DEFINE_string("distractors", "", "Folder of pictures of others.")
flags.mark_flags_as_required(["workdir"])


def main(argv):
    """Evaluates, and says what to do next."""
    del argv
    rates = _rates(_RATES.value)
    quiet.import_tensorflow(log_level=3)  # What goes wrong is raised as well.
    from trainers.evaluation import faces, one_shot
    from trainers.outputs import report

    protocols = faces.protocols(
        pairs=_PAIRS.value,
        ijbc=_IJBC.value,
        probes=_PROBES.value,
        distractors=_DISTRACTORS.value,
    )
    protocols |= one_shot.protocols(_ONE_SHOT_RUNS.value)
    run = report.evaluate_run(
        _WORKDIR.value,
        protocols=protocols,
        rerank=_RERANK.value,
        best=_BEST.value,
        false_accept_rates=rates,
    )
    print(f"Written to {run.evaluation} and {run.plots}.")
    options = [f"--workdir={_WORKDIR.value}", f"--base_path={run.suggested_base_path}"]
    options += ["--best"] if _BEST.value else []
    print(f"Next: {command_lines.python_module('export.publish', *options)}")


def _rates(values):
    try:
        rates = tuple(float(value) for value in values)
    except ValueError:
        rates = ()
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise commands.ConfigError(
            "--false_accept_rates must be numbers above 0 and below 1, as 0.01,0.001; found "
            f"{','.join(values) or 'none'}."
        )
    return rates


if __name__ == "__main__":
    commands.run(main)
