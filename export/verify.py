r"""Verifies a SavedModel in TensorFlow's C++ session, as TF Serving runs it.

    python -m export.verify --model=models/glyphs/1 [--workdir=runs/glyphs]

With --workdir it is also compared with the model of that run.
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console, runs


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("model", None, "Directory of a SavedModel (a version).", required=True)
    flags.DEFINE_string("workdir", None, "Run it was made from, to compare with.")
    flags.DEFINE_bool("best", False, "Made from the model that was best in training, not the last.")


def main(argv):
    """Verifies, and tells what was found."""
    del argv
    quiet.import_tensorflow()
    from export.saved_model.contents import Contents
    from export.verification import checks

    options = flags.FLAGS
    model = runs.load_model(options.workdir, best=options.best) if options.workdir else None
    checks.read_graph(options.model)  # Is there a SavedModel?
    contents = Contents.read(options.model) if model is not None else None
    verified = checks.verify_servable(options.model, model=model, contents=contents)
    print(f"{options.model} is fit to be served.")
    print("\n".join(f"  {line}" for line in verified.summary()))
    if model is None:
        print("Not checked: parity and size. Give --workdir=RUN to compare with the run's model.")


if __name__ == "__main__":
    define_flags()
    console.run(main)
