r"""Publishes the model of a finished run as the next version that TF Serving picks up.

    python -m export.publish --workdir=runs/glyphs --base_path=models/glyphs

The SavedModel is verified in TensorFlow's C++ session before it appears as BASE_PATH/VERSION.
"""

import os

from absl import flags

from export import console, runs


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("workdir", None, "Directory of a finished training run.", required=True)
    flags.DEFINE_string("base_path", None, "Directory of the model's versions.", required=True)
    flags.DEFINE_integer(
        "version", None, "Version to publish; default: one above the highest.", lower_bound=1
    )


def main(argv):
    """Publishes, and tells what was done and what comes next."""
    del argv
    options = flags.FLAGS
    run = runs.read(options.workdir)
    console.import_tensorflow()
    from export import publishing

    published = publishing.publish(run, base_path=options.base_path, version=options.version)
    print(report(published, workdir=options.workdir, base_path=options.base_path))


def report(published, *, workdir, base_path):
    """What a user wants to know after publishing, in lines."""
    name = os.path.basename(os.path.abspath(base_path))
    folder = os.path.abspath(base_path)
    return "\n".join(
        [
            *(f"  {line}" for line in published.verified.summary()),
            f"Published {published.path}",
            f"  fingerprint  {published.manifest['fingerprint']}",
            "Next:",
            "  check it again",
            f"    python -m export.verify --model={published.path} --workdir={workdir}",
            "  serve it (gRPC 8500, REST 8501)",
            f"    docker run --rm -p 8500:8500 -p 8501:8501 -e MODEL_NAME={name} \\",
            f"      -v {folder}:/models/{name} tensorflow/serving",
        ]
    )


if __name__ == "__main__":
    define_flags()
    console.run(main)
