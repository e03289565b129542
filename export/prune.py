r"""Removes old versions of a model: never the last one, nor one that models.config lists.

    python -m export.prune --base_path=models/glyphs --keep=3 --server=localhost:8500

What a --server has loaded is kept as well: it may not have followed models.config yet.
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console, rollout_flags


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    rollout_flags.define()
    flags.DEFINE_integer("keep", 3, "How many of the newest to keep.", lower_bound=1)


def main(argv):
    """Prunes, and tells what went and what is left."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle, servers, versions

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    name = lifecycle.model_name(options.base_path)
    with servers.connected(options.server, model=name, timeout=options.timeout) as asked:
        removed = lifecycle.prune(
            options.base_path, config=config, keep=options.keep, servers=asked
        )
    print(f"Removed {', '.join(map(str, removed)) or 'nothing'}.")
    print(f"Left: {', '.join(map(str, versions.existing(options.base_path)))}")


if __name__ == "__main__":
    define_flags()
    console.run(main)
