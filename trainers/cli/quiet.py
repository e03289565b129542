"""Importing TensorFlow without its start-up messages."""

import contextlib
import importlib
import os
import sys
import tempfile

__all__ = ["import_tensorflow"]


def import_tensorflow():
    """Imports TensorFlow and looks for devices, both without messages on the terminal.

    TensorFlow prints notes about oneDNN and missing CUDA drivers while its libraries load, past
    every log setting. They are kept back, and shown only when the import fails. Set
    TF_CPP_MIN_LOG_LEVEL yourself to see everything.

    Returns:
        The tensorflow module.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return importlib.import_module("tensorflow")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # What goes wrong is raised as well.
    with _stderr_kept_back():
        tf = importlib.import_module("tensorflow")
        tf.config.list_physical_devices()
    return tf


@contextlib.contextmanager
def _stderr_kept_back():
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
