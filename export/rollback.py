r"""Takes a model back: drops its canary or, if there is none, makes the previous version stable.

    python -m export.rollback --base_path=models/glyphs --server=localhost:8500

--server is as for `python -m export.promote`.
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console, rollout_flags


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    rollout_flags.define()


def main(argv):
    """Rolls back, and tells the labels."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle, servers

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    name = lifecycle.model_name(options.base_path)
    with servers.connected(options.server, model=name, timeout=options.timeout) as asked:
        labels = lifecycle.rollback(options.base_path, config=config, servers=asked)
    print(lifecycle.report(options.base_path, labels=labels, config=config))
    print(rollout_flags.followed(options))


if __name__ == "__main__":
    define_flags()
    console.run(main)
