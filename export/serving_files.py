r"""Writes TF Serving's batching, monitoring and platform files, or checks those that are there.

    python -m export.serving_files --output=models --batch_sizes=1,8,64
    python -m export.serving_files --check=models/models.config,models/batching.config

A misspelt field, a bad list of batch sizes, a label on a version that is not there: an error here,
not on a server that does not start.
"""

import os

from absl import flags

from circle_tf.utils import quiet
from export.cli import console


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_string("output", None, "Folder to write the files to.")
    flags.DEFINE_list("check", [], "Files to check instead.")
    flags.DEFINE_list("batch_sizes", ["1", "8", "64"], "Ascending; as given to export.publish.")
    flags.DEFINE_integer("timeout_micros", 1000, "How long a request waits for others.")
    flags.DEFINE_integer("threads", os.cpu_count() or 1, "Batches that run at a time.")
    flags.DEFINE_integer("queue", 100, "Batches that may wait before requests are refused.")


def main(argv):
    """Writes or checks, and tells the server's flags."""
    del argv
    options = flags.FLAGS
    if bool(options.output) == bool(options.check):
        raise console.ExportError("Give either --output=FOLDER or --check=FILE,...")
    quiet.import_tensorflow()
    if options.check:
        return _check(options.check)
    from export.rollout import server_config

    try:
        sizes = [int(size) for size in options.batch_sizes]
    except ValueError as error:
        raise console.ExportError(f"--batch_sizes: {options.batch_sizes} ({error}).") from error
    batching = server_config.batching(
        batch_sizes=sizes,
        timeout_micros=options.timeout_micros,
        threads=options.threads,
        queue=options.queue,
    )
    made = {
        "batching.config": batching,
        "monitoring.config": server_config.monitoring(),
        "platform.config": server_config.platform(batching=batching),
    }
    for name, content in made.items():
        server_config.write(os.path.join(options.output, name), content)
        print(f"Wrote {os.path.join(options.output, name)}")
    print("For tensorflow_model_server, either")
    print("  --enable_batching --batching_parameters_file=.../batching.config")
    print("or, with threads and warm-up in one file, --platform_config_file=.../platform.config;")
    print("and --monitoring_config_file=.../monitoring.config")


def _check(paths):
    from export.rollout import models_config, server_config

    for path in paths:
        if os.path.basename(path) in server_config.KINDS:
            server_config.read(path)
        else:
            models_config.load(path)
        print(f"{path} is right.")


if __name__ == "__main__":
    define_flags()
    console.run(main)
