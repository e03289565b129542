r"""Makes a model's canary its stable version, which its clients then get.

    python -m export.promote --base_path=models/glyphs --server=localhost:8500

The servers are given the change and asked whether they follow; if one does not, nothing is changed.
Without --server it is only written, for servers that poll models.config. The version that was
stable stays loaded under the label previous, for `python -m export.rollback`.
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console, rollout_flags


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    rollout_flags.define()
    flags.DEFINE_integer("version", None, "The canary's version, to be sure; default: whichever.")


def main(argv):
    """Promotes, and tells the labels."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle, servers

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    name = lifecycle.model_name(options.base_path)
    with servers.connected(options.server, model=name, timeout=options.timeout) as asked:
        labels = lifecycle.promote(
            options.base_path, config=config, version=options.version, servers=asked
        )
    print(lifecycle.report(options.base_path, labels=labels, config=config))
    print(rollout_flags.followed(options))
    print(f"To go back: {rollout_flags.command('rollback', options)}")


if __name__ == "__main__":
    define_flags()
    console.run(main)
