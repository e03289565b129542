r"""Takes a model back: drops its canary or, if there is none, makes the previous version stable.

python -m export.rollback --base_path=models/glyphs
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("base_path", None, "Directory of the model's versions.", required=True)
    flags.DEFINE_string(
        "models_config", None, "The models.config; default: the one beside --base_path."
    )


def main(argv):
    """Rolls back, and tells the labels."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    labels = lifecycle.rollback(options.base_path, config=config)
    print(lifecycle.report(options.base_path, labels=labels, config=config))


if __name__ == "__main__":
    define_flags()
    console.run(main)
