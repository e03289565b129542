"""The files of a run: what is where in its working directory, written so that kills do no harm."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import warnings

import ml_collections

from circle_tf import run_files
from circle_tf.utils import command_lines
from circle_tf.utils.files import replacing
from configs import base
from trainers.cli import commands

__all__ = ["MetricsLog", "Workdir", "changes", "read_json", "write_json"]


# Fields that say on what a run is trained, not what it is: it may go on elsewhere.
_MACHINES = {"strategy", "devices", "data_service"}
# Fields that may change while a run goes on: its length, and how often it is judged and saved.
_LENGTH = ("steps", "epochs")
_MAY_CHANGE = {*_LENGTH, "eval_every", "eval_examples"}
_MAY_CHANGE |= {"checkpoint_every", "keep_checkpoints", "keep_best"}
# What file systems without locks say, some network mounts among them.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL}


class Workdir(run_files.RunFiles):
    """A run's files as training uses them.

    Args:
        path: directory of the run.
    """

    @property
    def is_begun(self):
        """Whether there is a run with something to lose: it has reached its first checkpoint."""
        return self.is_finished or os.path.isdir(self.checkpoints)

    def check(self, config):
        """Checks that the directory is free, or holds a run of `config`.

        A run that was stopped before its first checkpoint has nothing to lose: its directory is
        free.

        Args:
            config: recipe, ml_collections.ConfigDict.

        Raises:
            commands.ConfigError: the directory holds a run of another recipe, or is a file.
        """
        if os.path.exists(self.path) and not os.path.isdir(self.path):
            raise commands.ConfigError(f"{self.path} is a file; --workdir wants a directory.")
        if not self.is_begun:
            return
        old = _recorded(self.config) if os.path.exists(self.config) else {}
        config = self.continued(config)
        asked = json.loads(config.to_json())
        if found := changes(old, asked, leave_out=_MACHINES | _MAY_CHANGE):
            raise commands.ConfigError(
                f"{self.path} holds a run of another recipe:\n  " + "\n  ".join(found) + "\n"
                "Give another --workdir for the new recipe, or the old values to resume the run."
            )

    def continued(self, config):
        """The recipe with the values of the run in the directory where it says `auto`.

        Args:
            config: recipe, ml_collections.ConfigDict.

        Returns:
            ml_collections.ConfigDict, locked; `config` itself where there is no run.
        """
        if not self.is_begun or not os.path.exists(self.config):
            return config
        old = read_json(self.config)
        own = {name: old.get(name, "auto") for name, value in config.items() if value == "auto"}
        return ml_collections.ConfigDict({**config.to_dict(), **own}).lock()

    def is_lengthened(self, config):
        """Whether `config` asks for another length than the run in the directory has.

        Args:
            config: recipe, ml_collections.ConfigDict, of a run that is begun.
        """
        old = read_json(self.config)
        return any(old.get(name) != config[name] for name in _LENGTH)

    def check_length(self, steps):
        """Checks that a finished run can be of so many steps.

        Args:
            steps: int.

        Raises:
            commands.ConfigError: it has done more already, or its checkpoints are gone.
        """
        if not self.is_finished:
            return
        done = read_json(self.run)["step"]
        if steps < done:
            raise commands.ConfigError(
                f"The finished run in {self.path} has done {done} steps; the command asks for "
                f"{steps}. Ask for more to go on with it, or give another --workdir."
            )
        if not os.path.isdir(self.checkpoints):
            raise commands.ConfigError(
                f"The finished run in {self.path} cannot go on to step {steps}: its checkpoints "
                "are gone. Give another --workdir to train anew."
            )

    @contextlib.contextmanager
    def locked(self):
        """Keeps other trainings out of the directory, which is made if it is not there.

        The lock ends with the block or with the process, however that ends.

        Yields:
            None.

        Raises:
            commands.ConfigError: another training writes to the directory at this moment.

        Warns:
            UserWarning: the file system knows no locks.
        """
        os.makedirs(self.path, exist_ok=True)
        with open(self.lock, "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "which has just begun"
                raise commands.ConfigError(
                    f"Another training writes to {self.path} now ({holder}): let it finish, stop "
                    "it, or give another --workdir."
                ) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                warnings.warn(
                    f"The file system of {self.path} has no locks ({error.strerror}): see to it "
                    "that no other training writes there.",
                    stacklevel=3,
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield

    def claim(self, config):
        """Makes the directory and writes the recipe down, before the first checkpoint.

        A finished run is no longer finished: it goes on.

        Args:
            config: recipe, ml_collections.ConfigDict.
        """
        os.makedirs(self.path, exist_ok=True)
        others = [] if self.is_begun else [self.best_record]  # Of a run that came to nothing.
        for path in (self.run, self.evaluation, *others):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        write_json(self.config, json.loads(config.to_json()))

    def recipe(self):
        """The recipe of the run.

        Returns:
            ml_collections.ConfigDict.

        Raises:
            commands.ConfigError: there is no run.
        """
        if not os.path.exists(self.config):
            options = "--config=configs/glyphs.py", f"--workdir={self.path}"
            raise commands.ConfigError(
                f"There is no run in {self.path!r}: config.json is missing. Train one with "
                f"{command_lines.python_module('trainers.train', *options)}"
            )
        return ml_collections.ConfigDict(_recorded(self.config)).lock()


class MetricsLog:
    """`metrics.jsonl`: one JSON object per line.

    Args:
        path: the file; made with the first record.
    """

    def __init__(self, path):
        self._path = path

    def append(self, record):
        """Adds a record, on disk when this returns.

        Args:
            record: dict with `step` (int) and JSON values.
        """
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def truncate(self, step):
        """Drops what lies after `step` and what is half written, to go on from a checkpoint.

        Args:
            step: int, the last step to keep.
        """
        kept = [record for record in self.records() if record["step"] <= step]
        if os.path.exists(self._path):
            _write(self._path, "".join(json.dumps(record) + "\n" for record in kept))

    def records(self):
        """The records, oldest first; a line cut off by a kill is left out.

        Returns:
            list of dicts.
        """
        if not os.path.exists(self._path):
            return []
        with open(self._path, encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        return [json.loads(line) for line in lines]


def read_json(path):
    """The content of a JSON file."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _recorded(path):
    """The recipe of a run; fields that are newer than it have defaults, which change nothing."""
    usual, found = base.get_config().to_dict(), read_json(path)
    for name, value in found.items():
        known = usual.get(name)
        both = isinstance(known, dict) and isinstance(value, dict)
        usual[name] = {**known, **value} if both else value
    return usual


def write_json(path, content):
    """Writes a JSON file whole or not at all.

    Args:
        path: the file.
        content: what `json` takes.
    """
    _write(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def _write(path, text):
    with replacing(path) as partial, open(partial, "w", encoding="utf-8") as file:
        file.write(text)


def changes(old, new, *, leave_out=frozenset(), prefix=""):
    """What differs between two recipes.

    Args:
        old: dict, of the run.
        new: dict, of the command.
        leave_out: set of the names that do not count.
        prefix: str, before each name.

    Returns:
        list of lines.

    Example:
        >>> changes({"loss": {"gamma": 80.0}}, {"loss": {"gamma": 64.0}})
        ['loss.gamma: the run has 80.0, the command 64.0']
    """
    lines = []
    for name in sorted({*old, *new} - leave_out):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += changes(before, after, prefix=f"{prefix}{name}.")
        elif before != after:
            lines.append(f"{prefix}{name}: the run has {before!r}, the command {after!r}")
    return lines
