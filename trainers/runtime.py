"""The set-up of a process before training: strategy, precision, seed, determinism, compilation."""

import keras
import tensorflow as tf

from trainers import commands

__all__ = ["describe_device", "jit_compile", "set_up"]

_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
_JIT = {"auto": "auto", "on": True, "off": False}


def set_up(config):
    """Sets what TensorFlow and Keras keep per process, from a recipe.

    Args:
        config: recipe; reads `strategy`, `precision`, `deterministic`, `seed`.

    Returns:
        tf.distribute.Strategy to build the model in.

    Raises:
        commands.ConfigError: a value that is not known or not supported.
    """
    if config.precision not in _PRECISIONS:
        raise commands.ConfigError(
            f"precision must be one of {', '.join(_PRECISIONS)}; found {config.precision!r}."
        )
    keras.config.set_dtype_policy(config.precision)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    return _strategy(config.strategy)


def jit_compile(config):
    """What to pass to `compile(jit_compile=...)`.

    Args:
        config: recipe; reads `jit`.

    Returns:
        "auto" (off on CPU, where XLA's convolutions are slower; on for GPU and TPU), or a bool.

    Raises:
        commands.ConfigError: a value that is not known.
    """
    if config.jit not in _JIT:
        raise commands.ConfigError(f"jit must be auto, on or off; found {config.jit!r}.")
    return _JIT[config.jit]


def describe_device():
    """The device that a single-device run uses, for people.

    Example:
        >>> describe_device().split()[0] in ("CPU", "GPU")
        True
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return f"GPU ({tf.config.experimental.get_device_details(gpus[0]).get('device_name', '')})"


def _strategy(name):
    if name != "single":
        raise commands.ConfigError(
            f"strategy must be 'single' (one device); found {name!r}. Training on several devices "
            "or machines is not supported yet."
        )
    return tf.distribute.get_strategy()
