"""What the workers of a run tell each other outside the training step."""

import contextlib
import zlib

import keras
import numpy as np
import tensorflow as tf

from circle_tf.distribute import sharded_variable
from trainers.cli import commands

__all__ = [
    "Exchange",
    "check_agreement",
    "check_same_choice",
    "check_same_data",
    "checksum",
    "explain_losses",
]


class Exchange:
    """Whole numbers from each worker to all; every worker must call it at the same time.

    Args:
        strategy: tf.distribute.Strategy.
        cluster: trainers.distributed.cluster.Cluster.
    """

    def __init__(self, strategy, cluster):
        self._strategy, self.cluster = strategy, cluster
        self._gather = tf.function(self._gathered)

    def gather(self, *numbers):
        """The numbers of every worker.

        Args:
            *numbers: ints, as many on each worker.

        Returns:
            ndarray int64 `[workers, len(numbers)]`, in the order of the workers.
        """
        return self._gather_arrays(np.array(numbers, np.int64))

    def from_chief(self, array):
        """The chief's array, on every worker.

        Args:
            array: ndarray int64; of the other workers only its shape matters.

        Returns:
            ndarray int64 of that shape.
        """
        return self._gather_arrays(np.asarray(array, np.int64))[0]

    def _gather_arrays(self, array):
        if len(self.cluster.workers) == 1:
            return array[None]
        found = self._gather(tf.constant(array[None]))
        # Each of a worker's replicas has sent the same.
        return found.numpy()[:: len(found) // len(self.cluster.workers)]

    def _gathered(self, own):
        def exchange():
            # A tensor that is a function's argument has no device: hence the identity.
            return tf.distribute.get_replica_context().all_gather(tf.identity(own), axis=0)

        return self._strategy.experimental_local_results(self._strategy.run(exchange))[0]


def checksum(variables):
    """A number that differs between weights that differ in any bit.

    Args:
        variables: Keras variables.

    Returns:
        int, 0 to 2^32 - 1.

    Example:
        >>> checksum([]) == 0
        True
    """
    value = 0
    for variable in variables:
        sharded = sharded_variable.is_sharded(variable)
        array = variable.numpy() if sharded else keras.ops.convert_to_numpy(variable)
        value = zlib.crc32(np.ascontiguousarray(array), value)
    return value


def check_agreement(exchange, *, step, variables):
    """Stops every worker when one of them would go on from another step or other weights.

    Args:
        exchange: Exchange.
        step: int, the step to go on from.
        variables: Keras variables, the same on every worker in a run that goes on.

    Raises:
        commands.ConfigError: on all workers, when they differ.
    """
    found = exchange.gather(step, checksum(variables))
    if (found == found[0]).all():
        return
    states = "".join(
        f"\n  worker {index} ({name}): step {step}, weights {digest:08x}"
        for index, (name, (step, digest)) in enumerate(
            zip(exchange.cluster.workers, found.tolist(), strict=True)
        )
    )
    raise commands.ConfigError(
        f"The workers would go on from different states, and have all stopped:{states}\n"
        "Every worker must read the same checkpoints: give all of them the same --workdir, on a "
        "disk that they share, and the same --config; then start all of them again."
    )


def check_same_data(exchange, digest):
    """Stops every worker when they do not all see the same data.

    Args:
        exchange: Exchange.
        digest: int, of what this worker sees, as of `trainers.datasets.inventory.checksum`.

    Raises:
        commands.ConfigError: on all workers, when they differ.
    """
    found = exchange.gather(digest)[:, 0]
    if (found == found[0]).all():
        return
    seen = ", ".join(
        f"worker {index} ({name}) {digest:08x}"
        for index, (name, digest) in enumerate(
            zip(exchange.cluster.workers, found.tolist(), strict=True)
        )
    )
    raise commands.ConfigError(
        f"Expected the same data set on every worker, found others ({seen}): give all of them the "
        "same copy of it, then start all of them again."
    )


def check_same_choice(exchange, choice):
    """Stops every worker when their machines chose otherwise for the `auto` of the recipe.

    Args:
        exchange: Exchange.
        choice: trainers.distributed.acceleration.Choice of this worker.

    Raises:
        commands.ConfigError: on all workers, when they differ.
    """
    found = exchange.gather(zlib.crc32(repr(choice).encode()))
    if (found != found[0]).any():
        raise commands.ConfigError(
            f"Expected one precision, jit and deterministic on all workers, found others: worker "
            f"{exchange.cluster.index} chose {choice.precision}, {choice.jit_compile} and "
            f"{choice.deterministic} for its devices. Set --config.precision, --config.jit and "
            "--config.deterministic."
        )


@contextlib.contextmanager
def explain_losses(exchange):
    """Turns TensorFlow's errors about a worker that is gone into one for people.

    Args:
        exchange: Exchange.

    Yields:
        None.

    Raises:
        commands.ConfigError: a worker was lost.
    """
    # What the others see of a worker that died, by the moment at which it did.
    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    )
    try:
        yield
    except (*lost, tf.errors.InternalError, tf.errors.FailedPreconditionError) as error:
        if len(exchange.cluster.workers) == 1:
            raise
        raise commands.ConfigError(
            f"Worker {exchange.cluster.index} lost another worker "
            f"({type(error).__name__}).\n"
            "See that worker's own error, if it left one. To go on from the newest checkpoint, "
            "start all workers again with the same command."
        ) from error
