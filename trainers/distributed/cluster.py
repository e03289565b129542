"""TF_CONFIG: how the processes of a multi-worker run know each other. Imports no TensorFlow."""

import dataclasses
import json
import os

from trainers.cli import commands

__all__ = ["Cluster", "tf_config"]

_EXAMPLE = (
    '{"cluster": {"worker": ["host0:12345", "host1:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
_REMEDY = (
    f"Every worker needs TF_CONFIG={_EXAMPLE}, with its own index. To try it out on one machine: "
    "python -m trainers.launch --workers=2 (and the options of trainers.train)."
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Args:
        workers: `host:port` of each worker; the first is the chief, which writes the run's files.
        index: int, which of them this process is.
    """

    workers: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self):
        """Whether this process writes the run's files."""
        return self.index == 0

    @classmethod
    def from_environment(cls, environment=None):
        """The cluster that TF_CONFIG describes.

        Args:
            environment: mapping; None for that of the process.

        Returns:
            Cluster.

        Raises:
            commands.ConfigError: TF_CONFIG is missing or not such a description.

        Example:
            >>> Cluster.from_environment({"TF_CONFIG": tf_config(["a:1", "b:1"], index=1)}).index
            1
        """
        text = (os.environ if environment is None else environment).get("TF_CONFIG", "")
        if not text:
            raise commands.ConfigError(f"strategy=multi_worker: TF_CONFIG is not set. {_REMEDY}")
        try:
            config = json.loads(text)
            workers, task = config["cluster"]["worker"], config["task"]
            kind, index = task["type"], int(task["index"])
        except (ValueError, KeyError, TypeError) as error:
            raise commands.ConfigError(
                f"TF_CONFIG cannot be read ({type(error).__name__}: {error}): {text!r}. {_REMEDY}"
            ) from error
        if kind != "worker" or not 0 <= index < len(workers):
            raise commands.ConfigError(
                f"TF_CONFIG: expected task type worker and an index from 0 to {len(workers) - 1}; "
                f"found {kind} {index}. {_REMEDY}"
            )
        return cls(tuple(workers), index)


def tf_config(workers, *, index):
    """The value of TF_CONFIG for one worker.

    Args:
        workers: `host:port` of each worker, in the same order everywhere.
        index: int, which of them.

    Returns:
        str, JSON.

    Example:
        >>> tf_config(["a:1"], index=0)
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'
    """
    return json.dumps(
        {"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": index}}
    )
