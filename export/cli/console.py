"""What the export commands share: errors for people, and a quiet import of TensorFlow."""

import contextlib
import importlib
import os
import sys
import tempfile

from absl import app, flags, logging

__all__ = ["ExportError", "import_tensorflow", "run", "stderr_kept_back"]


class ExportError(ValueError):
    """The command cannot do what it is asked to; the message says what was found and what to do.

    Commands print the message without a traceback: it speaks of the request, not of the code.
    """


def run(main):
    """Runs a command: parses the flags, calls `main(argv)`, prints errors for people in one line.

    ExportError and OSError (no such file, disk full, permission) end the command with status 1.
    Every other error keeps its traceback.

    Args:
        main: `fn(argv)`, which does the work.
    """
    app.run(lambda argv: _main(main, argv))


def import_tensorflow():
    """Imports TensorFlow and looks for devices without their messages on the terminal.

    TensorFlow prints notes about oneDNN and missing CUDA drivers while its libraries load, past
    every log setting. They are kept back, and shown only when the import fails. Set
    TF_CPP_MIN_LOG_LEVEL yourself to see everything.

    Returns:
        The tensorflow module.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return importlib.import_module("tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    with stderr_kept_back():
        tf = importlib.import_module("tensorflow")
        tf.config.list_physical_devices()
    return tf


def _main(main, argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected argument {argv[1]!r}: options are written --name=value.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow tells how it saves, step by step.
    try:
        main(argv)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


@contextlib.contextmanager
def stderr_kept_back():
    """Holds back what is written to file descriptor 2, also by C++; shows it on an error."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
