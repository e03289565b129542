r"""Makes a model's canary its stable version, which its clients then get.

    python -m export.promote --base_path=models/glyphs

Servers that poll models.config follow without a restart; the version that was stable stays loaded
under the label previous, for `python -m export.rollback`.
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
    flags.DEFINE_integer("version", None, "The canary's version, to be sure; default: whichever.")


def main(argv):
    """Promotes, and tells the labels."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    labels = lifecycle.promote(options.base_path, config=config, version=options.version)
    print(lifecycle.report(options.base_path, labels=labels, config=config))
    print(f"To go back: python -m export.rollback --base_path={options.base_path}")


if __name__ == "__main__":
    define_flags()
    console.run(main)
