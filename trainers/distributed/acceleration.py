"""How a run uses its devices: precision, XLA and determinism, chosen where the recipe says auto."""

from typing import NamedTuple

import ml_collections
import tensorflow as tf

from trainers.cli import commands

__all__ = ["FIELDS", "Choice", "Device", "choose", "chosen", "describe", "devices_of"]

FIELDS = ("precision", "jit", "deterministic")
_PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
_JIT = {"auto": "auto", "on": True, "off": False}
# From which compute capability on a GPU multiplies in that precision faster than in float32.
_HALF_PRECISIONS = {(8, 0): "mixed_bfloat16", (7, 0): "mixed_float16"}


class Device(NamedTuple):
    """A device that a run trains on.

    Args:
        kind: `CPU`, `GPU` or `TPU`.
        name: str, what it is sold as; empty where it is not known.
        capability: `(major, minor)`, the compute capability of an NVIDIA GPU, or None.
    """

    kind: str
    name: str = ""
    capability: tuple | None = None


class Choice(NamedTuple):
    """What a run computes with.

    Args:
        precision: Keras' dtype policy.
        jit_compile: what to pass to `compile`: a bool, or "auto" for XLA where the net can be
            compiled.
        deterministic: whether the same command gives the same weights, bit for bit.
    """

    precision: str
    jit_compile: bool | str
    deterministic: bool


def choose(config, devices):
    """Decides what the recipe leaves to the devices: a pure function of both.

    Where the recipe says `auto`, a CPU takes float32 without XLA, whose convolutions are slower
    there, and determinism unless XLA is asked for. A GPU or TPU takes the half precision that it
    is faster in, XLA, and no determinism. With determinism asked for, XLA is off unless it is asked
    for as well.

    Args:
        config: recipe; reads `precision`, `jit`, `deterministic`.
        devices: list of Device, of one kind; the oldest GPU decides for all.

    Returns:
        Choice.

    Raises:
        commands.ConfigError: a value that is not known.

    Example:
        >>> from configs import base
        >>> choose(base.get_config(), [Device("GPU", "NVIDIA H100", (9, 0))])
        Choice(precision='mixed_bfloat16', jit_compile='auto', deterministic=False)
        >>> choose(base.get_config(), [Device("CPU")])
        Choice(precision='float32', jit_compile=False, deterministic=True)
    """
    _check(config)
    on_cpu = devices[0].kind == "CPU"
    precision, jit, deterministic = (config[name] for name in FIELDS)
    if precision == "auto":
        precision = _fastest_precision(devices)
    if deterministic == "auto":
        deterministic = on_cpu and jit != "on"
    if jit == "auto" and (on_cpu or deterministic):
        jit = "off"
    return Choice(precision, _JIT[jit], deterministic)


def devices_of(config):
    """The devices of this machine that a run trains on.

    Args:
        config: recipe; reads `strategy`, `devices`.

    Returns:
        list of Device, of one kind, at least one.

    Example:
        >>> from configs import base
        >>> devices_of(base.get_config())[0].kind in ("CPU", "GPU", "TPU")
        True
    """
    count = 1 if config.strategy == "single" else config.devices or None
    if gpus := tf.config.list_physical_devices("GPU"):
        return [_gpu(device) for device in gpus[:count]]
    if tpus := tf.config.list_physical_devices("TPU"):
        return [Device("TPU") for _ in tpus[:count]]
    return [Device("CPU")] * (count or 1)


def chosen(config, choice):
    """The recipe with what was chosen in place of `auto`; a run goes on with that elsewhere.

    `jit` stays as it is: with `auto` each machine decides anew. It changes nothing but rounding,
    and stays off in runs that are deterministic.

    Args:
        config: recipe.
        choice: Choice.

    Returns:
        ml_collections.ConfigDict, locked.

    Example:
        >>> from configs import base
        >>> config = chosen(base.get_config(), Choice("mixed_bfloat16", "auto", False))
        >>> config.precision, config.deterministic
        ('mixed_bfloat16', False)
    """
    changes = {"precision": choice.precision, "deterministic": choice.deterministic}
    return ml_collections.ConfigDict({**config.to_dict(), **changes}).lock()


def describe(choice, devices, *, xla):
    """One line for people: on what a run trains, and how.

    Args:
        choice: Choice.
        devices: list of Device, of one kind.
        xla: bool, whether XLA compiles the steps.

    Returns:
        str.

    Example:
        >>> describe(Choice("float32", False, True), [Device("CPU")], xla=False)
        'On 1 CPU: float32, no XLA, repeatable bit for bit; choose by --config.precision, ...'
    """
    names = ", ".join(sorted({device.name for device in devices if device.name}))
    plural = "s" if len(devices) > 1 else ""
    where = f"{len(devices)} {devices[0].kind}{plural}" + (f" ({names})" if names else "")
    compiled = "XLA" if xla else "no XLA"
    repeatable = "repeatable bit for bit" if choice.deterministic else "not repeatable bit for bit"
    options = ", ".join(f"--config.{name}" for name in FIELDS)
    return f"On {where}: {choice.precision}, {compiled}, {repeatable}; choose by {options}."


def _check(config):
    if config.precision not in _PRECISIONS:
        raise commands.ConfigError(
            f"precision must be one of {', '.join(_PRECISIONS)}; found {config.precision!r}."
        )
    if config.jit not in _JIT:
        raise commands.ConfigError(f"jit must be auto, on or off; found {config.jit!r}.")
    if config.deterministic != "auto" and not isinstance(config.deterministic, bool):
        raise commands.ConfigError(
            f"deterministic must be auto, True or False; found {config.deterministic!r}."
        )


def _fastest_precision(devices):
    if devices[0].kind == "TPU":
        return "mixed_bfloat16"
    oldest = min(device.capability or (0, 0) for device in devices)
    found = [name for least, name in _HALF_PRECISIONS.items() if oldest >= least]
    return found[0] if found else "float32"


def _gpu(device):
    details = tf.config.experimental.get_device_details(device)
    return Device("GPU", details.get("device_name", ""), details.get("compute_capability"))
