"""What the commands have in common: flags with clear errors, and errors for people."""

import contextlib
import difflib
import logging as py_logging
import os
import re
import sys
import warnings

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from circle_tf.utils import command_lines, errors, quiet

__all__ = ["ConfigError", "config_errors", "recipe", "run"]

_NO_RECIPE = "There is no recipe {!r}. Recipes are the files in configs/."
_NO_SERVICE = (
    "There is no tf.data service any more: leave it out, each worker prepares its own batches. "
    "Where that is too slow, see Input in docs/distributed-training.md."
)
_GONE = {"data_service": _NO_SERVICE, "data_service_workers": _NO_SERVICE}  # Fields and flags.
# Losses of one formula, whose margin and gamma mean the same.
_KINDS = ({"circle", "keras_circle"}, {"class_circle", "circle_head"})
_STARTS = ("margin_start", "gamma_start")
_TUNED = ("margin", "gamma", *_STARTS)


class ConfigError(errors.UserError):
    """A command cannot do what it is asked to."""


@contextlib.contextmanager
def config_errors():
    """Turns the error of a library that refuses a value, or a combination, into a ConfigError."""
    try:
        yield
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(str(error)) from error


def recipe(flag):
    """The recipe that a config flag names, and the recipe's name.

    With another kind of loss than the file's, margin and gamma are that loss's own defaults where
    the command line does not set them; a line says so.

    Args:
        flag: the holder that `config_flags.DEFINE_config_file` returned.

    Returns:
        `(ml_collections.ConfigDict, name)`; the name is that of the file without folder and suffix.

    Raises:
        ConfigError: there is no such file.
    """
    # What stands after a colon is the argument of the recipe's get_config.
    holder = flags.FLAGS[flag.name]
    path = config_flags.get_config_filename(holder).partition(":")[0]
    if not os.path.isfile(path):
        raise ConfigError(_NO_RECIPE.format(path))
    given = config_flags.get_override_values(holder)
    if "loss.name" in given:
        own = holder.parser.parse(config_flags.get_config_filename(holder))
        _follow_loss(flag.value.loss, own=own.loss, given=given)
    for section in flag.value.values():  # Paths that the file itself names.
        for name, value in section.items() if isinstance(section, ConfigDict) else []:
            if isinstance(value, str):
                section[name] = command_lines.expand_home(value)
    return flag.value, os.path.splitext(os.path.basename(path))[0]


def _follow_loss(loss, *, own, given):
    """Takes back the margin and gamma that a recipe has for a loss of another kind."""
    if loss.name == own.name:
        return
    tuned = _TUNED
    if any({loss.name, own.name} <= kind for kind in _KINDS):
        tuned = _STARTS if loss.name == "keras_circle" else ()  # Keras' own cannot follow a step.
    foreign = [name for name in tuned if f"loss.{name}" not in given and own[name] is not None]
    for name in foreign:
        loss[name] = None
    if foreign:
        values = " and ".join(f"{name} {own[name]:g}" for name in foreign)
        options = " and ".join(f"--config.loss.{name}" for name in foreign)
        print(
            f"The recipe's {values} {'are' if foreign[1:] else 'is'} for the loss {own.name}; "
            f"{loss.name} takes its own defaults, or what {options} say."
        )


def run(main):
    """Runs a command: parses the flags, calls `main(argv)`, prints errors for people in one line.

    A misspelt flag or config field ends the command with status 2 and a suggestion; a `UserError`,
    a package that is not installed and what the disk refuses with status 1. Every other error
    keeps its traceback. When nobody reads the output any more, it ends without a word.

    Args:
        main: `fn(argv)`, which does the work.
    """
    with quiet.unread_output():
        app.run(
            lambda argv: _main(main, argv), argv=command_lines.given(), flags_parser=_parse_flags
        )


def _main(main, argv):
    if len(argv) > 1:
        _stop(f"Unexpected argument {argv[1]!r}: options are written --name=value.", status=2)
    _speak_plainly()
    try:
        main(argv)
    except KeyboardInterrupt:
        _stop("Interrupted.", status=130)
    except BrokenPipeError:  # For `run`: most likely nobody reads the output.
        raise
    except (errors.UserError, ImportError, OSError) as error:
        _stop(str(error), status=1)


def _parse_flags(args):
    try:
        return flags.FLAGS(args)
    except flags.UnrecognizedFlagError as error:
        hint = "" if "Did you mean" in str(error) else ". See --help."
        hint = f". {_GONE[error.flagname]}" if error.flagname in _GONE else hint
        _stop(f"{error}{hint}", status=2)
    except flags.Error as error:
        _stop(str(error), status=2)
    except BrokenPipeError:  # Of --help.
        raise
    except OSError:  # Options within a recipe that cannot be opened.
        _stop(_NO_RECIPE.format(_recipe_path(args)), status=1)
    except (AttributeError, KeyError) as error:
        # What ml_collections lets out of a file that is no recipe, and for a field that the recipe
        # lacks. A recipe whose own code is wrong keeps its traceback.
        if getattr(error, "name", None) == "get_config":
            _stop("The file of --config has no function get_config: it is no recipe.", status=2)
        if unknown := _unknown_field(args):
            _stop(unknown, status=2)
        raise


def _recipe_path(args):
    return re.search(r"^--?config[=\n](.*)$", "\n".join(args), re.MULTILINE)[1]


def _unknown_field(args):
    """What to say of the first option whose field the recipe lacks; None if there is none."""
    recipe = flags.FLAGS["config"].parser.parse(_recipe_path(args))
    for option in args:
        section, (root, *names) = recipe, option.partition("=")[0].lstrip("-").split(".")
        for name in names if root in ("config", "noconfig") else []:
            known = list(section) if isinstance(section, ConfigDict) else []
            if name not in known:
                hint = "See configs/base.py for the fields."
                if close := difflib.get_close_matches(name, known, n=1):
                    hint = f"Did you mean {close[0]!r}?"
                return f"{option}: the recipe has no field {name!r}. {_GONE.get(name, hint)}"
            section = section[name]
    return None


def _speak_plainly():
    """Shows log messages and warnings as one line of text, without where they come from."""
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
        plain = py_logging.Formatter("warning: %(message)s")
        logging.get_absl_handler().setFormatter(plain)
    warnings.showwarning = _show_warning
    sys.stdout.reconfigure(errors="backslashreplace")  # Names of files need not be UTF-8.


def _show_warning(message, category, filename, lineno, file=None, line=None):
    del category, filename, lineno, line
    print(f"warning: {message}", file=file or sys.stderr)


def _stop(message, *, status):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)
