"""Commands that are printed for people to run next."""

import shlex

__all__ = ["python_module"]


def python_module(module, *options):
    """A command of ours as a shell takes it, whatever is in its options.

    Args:
        module: as `python -m` runs it.
        options: its words after that, as `--workdir=runs/mine`.

    Returns:
        str.

    Example:
        >>> python_module("trainers.evaluate", "--workdir=runs/my first")
        "python -m trainers.evaluate '--workdir=runs/my first'"
    """
    return shlex.join(["python", "-m", module, *options])
