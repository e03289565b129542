"""What commands keep to themselves: TensorFlow's start-up messages, readers that went away."""

import contextlib
import importlib
import os
import select
import signal
import sys
import tempfile

__all__ = ["call", "import_tensorflow", "stderr_kept_back", "unread_output"]


def import_tensorflow(*, log_level=2):
    """Imports TensorFlow and looks for devices, both without messages on the terminal.

    TensorFlow prints notes about oneDNN and missing CUDA drivers while its libraries load, past
    every log setting. They are kept back, and shown only when the import fails. Set
    TF_CPP_MIN_LOG_LEVEL yourself to see everything.

    Args:
        log_level: int, of TF_CPP_MIN_LOG_LEVEL from then on: 2 shows C++ errors, 3 nothing.

    Returns:
        The tensorflow module.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return importlib.import_module("tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = str(log_level)
    with stderr_kept_back():
        tf = importlib.import_module("tensorflow")
        tf.config.list_physical_devices()
    return tf


def call(module, name, *args):
    """Calls a function of a module that TensorFlow comes with, as a process that is begun does.

    Args:
        module: its dotted name; imported with what that prints on stderr kept back.
        name: of the function.
        *args: of the call, plain values.

    Returns:
        What the function returns.

    Example:
        >>> call("os.path", "basename", "a/b.png")
        'b.png'
    """
    with stderr_kept_back():
        function = getattr(importlib.import_module(module), name)
    return function(*args)


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


@contextlib.contextmanager
def unread_output():
    """Ends the process without a word when nobody reads what it prints any more (`| head`).

    Its status is then 141, as of programs that the system ends for that.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if _is_read(sys.stdout):  # It was another pipe, or a connection.
            raise
        # What is still to be printed goes nowhere; at its exit Python would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _is_read(stream):
    """Whether somebody still holds the other end of the pipe."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)  # Errors are told unasked.
    return not poll.poll(0)
