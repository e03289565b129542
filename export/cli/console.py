"""What the export commands share: errors for people."""

import sys

from absl import app, flags, logging

__all__ = ["ExportError", "run"]


class ExportError(ValueError):
    """The command cannot do what it is asked to; the message says what was found and what to do.

    Commands print the message without a traceback: it speaks of the request, not of the code.
    No `circle_tf.utils.errors.UserError`: the client raises it as well, and does without circle_tf.
    """


def run(main):
    """Runs a command: parses the flags, calls `main(argv)`, prints errors for people in one line.

    ExportError and OSError (no such file, disk full, permission) end the command with status 1.
    Every other error keeps its traceback. When nobody reads the output any more, the command ends
    without a word.

    Args:
        main: `fn(argv)`, which does the work.
    """
    from circle_tf.utils import command_lines, quiet

    with quiet.unread_output():
        app.run(lambda argv: _main(main, argv), argv=command_lines.given())


def _main(main, argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected argument {argv[1]!r}: options are written --name=value.")
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # TensorFlow tells how it saves, step by step.
    sys.stdout.reconfigure(errors="backslashreplace")  # Names of files need not be UTF-8.
    try:
        main(argv)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # For `run`: most likely nobody reads the output.
        raise
    except (ExportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
