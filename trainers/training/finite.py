"""NaN and inf: a run stops at the first, and what is saved stays good."""

import contextlib
import math

import keras
import tensorflow as tf

from circle_tf.optimizers import extension
from circle_tf.utils import errors
from trainers.cli import commands

__all__ = ["NotFinite", "StateCheck", "check_loss", "explained"]


class NotFinite(errors.UserError):
    """The loss or a part of the state is NaN or inf.

    Args:
        found: str, what is not finite.
        step: int, steps done.
    """

    def __init__(self, found, *, step):
        super().__init__(f"{found} after step {step}: the training has diverged.")


def check_loss(loss, *, step):
    """Refuses a loss that is NaN or inf.

    Args:
        loss: float.
        step: int, steps done.

    Raises:
        NotFinite: it is.

    Example:
        >>> check_loss(float("inf"), step=3)
        Traceback (most recent call last):
        trainers.training.finite.NotFinite: The loss is inf after step 3: the training has diverged.
    """
    if not math.isfinite(loss):
        raise NotFinite(f"The loss is {loss}", step=step)


class StateCheck:
    """Refuses a state with NaN or inf: in one reduction, with one answer on all workers.

    Looked at are weights and moving statistics of the model, its memory, the optimizer's state, and
    sums of accumulated gradients. Under loss scaling the latter may be inf: the update that they
    are for is skipped.

    Args:
        model: compiled keras.Model, with all variables made.
    """

    def __init__(self, model):
        memory, accumulator = getattr(model, "memory", None), getattr(model, "accumulator", None)
        scaled = extension.inner_optimizer(model.optimizer) is not model.optimizer
        variables = [
            *model.variables,
            *(memory.variables if memory else []),
            *model.optimizer.variables,
            *(accumulator.variables if accumulator and not scaled else []),
        ]
        floats = [v for v in variables if tf.as_dtype(v.dtype).is_floating]
        self._names = [getattr(variable, "path", variable.name) for variable in floats]
        self._flags = _flags_of(floats, model.distribute_strategy)

    def __call__(self, *, step):
        """Looks at the state; under several workers each has to.

        Args:
            step: int, steps done.

        Raises:
            NotFinite: on all workers; it names the first variable.
        """
        bad = self._flags().numpy()
        if bad.any():
            name = self._names[bad.argmax()]
            raise NotFinite(f"{name} has values that are NaN or inf", step=step)


def _flags_of(variables, strategy):
    """A function that returns for each variable on how many replicas it is not finite."""

    def own():
        values = [keras.ops.convert_to_tensor(variable) for variable in variables]
        bad = tf.stack([~tf.reduce_all(tf.math.is_finite(value)) for value in values])
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(bad, tf.int32))

    @tf.function(autograph=False)
    def flags():
        return strategy.experimental_local_results(strategy.run(own))[0]

    return flags


@contextlib.contextmanager
def explained(config, *, checkpoints, advice):
    """Adds to `NotFinite` what is likely to have caused it, and what to do.

    Args:
        config: recipe.
        checkpoints: trainers.training.checkpoints.Checkpoints of the run.
        advice: list of str, filled by a `DiagnosticsCallback`.

    Yields:
        None.

    Raises:
        commands.ConfigError: in place of `NotFinite`.
    """
    try:
        yield
    except NotFinite as error:
        saved = "Nothing was saved: the same command starts anew"
        if checkpoints.step:
            saved = f"Step {checkpoints.step} is saved and good: the same command goes on from it"
        told = "".join(f"{message} " for message in advice)
        raise commands.ConfigError(
            f"{error} {_likely(config)} {told}{saved}, other values want another --workdir."
        ) from error


def _likely(config):
    rate = config.optimizer.learning_rate
    causes = f"Likely, optimizer.learning_rate={rate:g} is too high: lower it, "
    causes += "warm it up (optimizer.warmup_steps) or limit gradients (optimizer.clipnorm)"
    if config.precision == "mixed_float16":
        causes += "; or numbers exceed float16's 65,504: precision=mixed_bfloat16 has room for them"
    return f"{causes}."
