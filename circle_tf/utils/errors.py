"""Errors for people. Imports no TensorFlow: commands know them before it is loaded."""

import re

__all__ = ["UserError", "reason"]

# Of a function's error: where it was called, and where it is in the graph.
_PLACES = ("Graph execution error", "Detected at node", "<stack traces", "File ", "[[")


class UserError(ValueError):
    """What is asked for cannot be; the message says what was expected, what was found, what to do.

    The request is at fault, not the code: commands print the message in one line, without a
    traceback. Rooms and packages derive their own from it.
    """


def reason(error):
    r"""What an error says, in one line, without where in TensorFlow's graph it was found.

    Args:
        error: Exception, TensorFlow's own or another.

    Returns:
        str; the error's class where it says nothing.

    Example:
        >>> reason(ValueError("{{function_node f}} No PNG [Op:DecodeImage] name: \n more"))
        'No PNG'
        >>> reason(ValueError("assertion failed: [k is] [12]\n\t [[{{node k}}]]"))
        'k is 12'
    """
    lines = (line.strip() for line in str(getattr(error, "message", None) or error).splitlines())
    said = [line for line in lines if line and not line.startswith(_PLACES)]
    text = said[0] if said else type(error).__name__
    text = re.sub(r"\{\{[^}]*\}\} ?", "", text).partition(" [Op:")[0]
    text = re.sub(r"^Error in user-defined function .* with iterator: \S+: ", "", text)
    if found := re.fullmatch(r"assertion failed: \[(.*)\]", text):
        return found[1].replace("] [", " ")
    if found := re.search(r" to be true\. Summarized data: b['\"](.*)['\"]$", text):
        return found[1]
    return text
