"""Command lines: those that people type, and those that are printed for them to run next."""

import os
import re
import shlex
import sys

__all__ = ["expand_home", "given", "python_module"]

_HOME = re.compile(r"(^|[=,:])~(?=/|$)")


def expand_home(word):
    """A word of a command line with `~` as the home folder, where a shell would not have done it.

    Shells expand a `~` at the beginning of a word only, so that `--path=~/photos` comes as it was
    typed. Here it is expanded after `=`, `,` and `:` too.

    Args:
        word: str, an argument, or a path that a recipe's file names.

    Returns:
        str.

    Example:
        >>> expand_home("--path=~/photos") == "--path=" + os.path.expanduser("~/photos")
        True
        >>> expand_home("--path=photos~/a")
        '--path=photos~/a'
    """
    return _HOME.sub(lambda match: match[1] + os.path.expanduser("~"), word)


def given():
    """The words of this process's command line, each `~` expanded; -h and --help end the process.

    These print what the command is for and which flags it has. absl would do so for --help, but
    with the status of a failure, and knows no -h.

    Returns:
        list of str.
    """
    from absl import app

    words = [expand_home(word) for word in sys.argv]
    if {"-h", "-help", "--help"} & set(words):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    return words


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
