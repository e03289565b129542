"""Trains a recipe: images to embeddings by Circle loss.

    python -m trainers.train --config=configs/glyphs.py --workdir=runs/glyphs
    python -m trainers.train --config=configs/glyphs.py --workdir=runs/g64 --config.loss.gamma=64

The same command resumes a run that was stopped, at the newest checkpoint in its workdir, on the
data that it began with (--allow_changed_data goes on over other data). With more --config.steps (or
epochs) a finished run goes on as well. Any field of configs/base.py can be set on the command line.
SIGTERM and Ctrl-C save a checkpoint and end the command with status 75; a second Ctrl-C ends it at
once.
"""

import sys

from absl import flags
from ml_collections import config_flags

from circle_tf import run_files
from circle_tf.utils import command_lines, quiet
from trainers.cli import commands

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Recipe: a file in configs/.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Directory for the files of the run.")
_ALLOW_CHANGED_DATA = flags.DEFINE_bool(
    "allow_changed_data", False, "Go on with a run over other data than it began with."
)
flags.mark_flags_as_required(["config", "workdir"])


def main(argv):
    """Trains, and says what to do next."""
    del argv
    config, name = commands.recipe(_CONFIG)
    quiet.import_tensorflow(log_level=3)  # What goes wrong is raised as well.
    from trainers.distributed import preemption
    from trainers.training import loop

    try:
        run = loop.train(
            config,
            workdir=_WORKDIR.value,
            config_name=name,
            allow_changed_data=_ALLOW_CHANGED_DATA.value,
        )
    except preemption.Preempted as stop:
        print(stop, file=sys.stderr)
        if config.strategy != "multi_worker":  # Else trainers.launch tells its own command.
            same = command_lines.python_module("trainers.train", *sys.argv[1:])
            print(f"Go on: {same}", file=sys.stderr)
        raise
    print(f"The embedding model is {run.model}.")
    if run.has_best:
        best = run_files.read_best(run)
        print(
            f"The best in training ({best['judge']['metric']} {best['value']:.3f} after step "
            f"{best['step']}) is {run.best}: --best takes it."
        )
    evaluate = command_lines.python_module("trainers.evaluate", f"--workdir={_WORKDIR.value}")
    print(f"Next: {evaluate}")


if __name__ == "__main__":
    commands.run(main)
