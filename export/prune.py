r"""Removes old versions of a model: never the last one, nor one that models.config lists.

python -m export.prune --base_path=models/glyphs --keep=3
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
    flags.DEFINE_integer("keep", 3, "How many of the newest to keep.", lower_bound=1)


def main(argv):
    """Prunes, and tells what went and what is left."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle, versions

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    removed = lifecycle.prune(options.base_path, config=config, keep=options.keep)
    print(f"Removed {', '.join(map(str, removed)) or 'nothing'}.")
    print(f"Left: {', '.join(map(str, versions.existing(options.base_path)))}")


if __name__ == "__main__":
    define_flags()
    console.run(main)
