"""Errors for people. Imports no TensorFlow: commands know them before it is loaded."""

__all__ = ["UserError"]


class UserError(ValueError):
    """What is asked for cannot be; the message says what was expected, what was found, what to do.

    The request is at fault, not the code: commands print the message in one line, without a
    traceback. Rooms and packages derive their own from it.
    """
