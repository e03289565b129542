r"""Makes servers and models.config agree on a model's labels, and tells them.

    python -m export.labels --base_path=models/glyphs --server=localhost:8500

A version that waits until servers have loaded it, as publish lists it where it can ask none, gets
its label: canary, or stable if none is. Without --server the labels are only told.
"""

from absl import flags

from circle_tf.utils import quiet
from export.cli import console, rollout_flags


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    rollout_flags.define()
    flags.DEFINE_integer(
        "version", None, "Version to be the canary; default: the one that waits to be, if any."
    )
    flags.DEFINE_bool(
        "loaded",
        False,
        "Give the label without --server: you know that all servers have loaded it.",
    )


def main(argv):
    """Settles, and tells the labels."""
    del argv
    quiet.import_tensorflow()
    from export.rollout import lifecycle, servers

    options = flags.FLAGS
    config = options.models_config or lifecycle.default_config(options.base_path)
    name = lifecycle.model_name(options.base_path)
    with servers.connected(options.server, model=name, timeout=options.timeout) as asked:
        if options.version is not None:
            lifecycle.add(options.base_path, version=options.version, config=config, servers=asked)
        labels = lifecycle.settle(
            options.base_path, config=config, servers=asked, loaded=options.loaded
        )
    print(lifecycle.report(options.base_path, labels=labels, config=config))
    print(rollout_flags.followed(options))


if __name__ == "__main__":
    define_flags()
    console.run(main)
