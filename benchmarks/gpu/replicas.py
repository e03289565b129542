"""Two replicas on one GPU, which is cut in two: the numbers of one device, or a refusal."""

import functools

import tensorflow as tf

from benchmarks import strategy_cases
from benchmarks.gpu import table

_CASES = ("CircleLoss", "CircleHead over replicas", "CircleLoss, XLA")
# What is refused is right; what must not be is another result.
_REFUSALS = (ValueError, NotImplementedError, RuntimeError, tf.errors.OpError)
_MIB = 2048  # Memory of each half.


def rows(limits):
    """Each case under MirroredStrategy, as it chooses to exchange, and by way of copies."""
    devices = _halves()
    ways = {
        "copies": tf.distribute.HierarchicalCopyAllReduce(),
        "its own choice": None,  # Last, as NCCL may wait for ever where both are one GPU.
    }
    names = _CASES[:1] if limits.small else _CASES
    alone = {}
    for how, operations in ways.items():
        # One for all cases: a second would number its collectives from the start again.
        strategy = functools.cache(lambda o=operations: tf.distribute.MirroredStrategy(devices, o))
        for name in names:
            title = f"{name}: two replicas, exchange by {how}"
            if name not in alone:
                alone[name] = _results(name, tf.distribute.get_strategy())
            yield limits.skips(title) or table.guarded(
                title, _check, title, name, alone[name], strategy
            )


def _check(title, name, alone, strategy):
    try:
        found = _results(name, strategy())
    except _REFUSALS as error:
        return {**table.failed(title, f"refused: {error}"), "verdict": "pass"}
    case = strategy_cases.CASES[name]
    apart = strategy_cases.differences(found, alone)
    limits = {"weights": case.tolerance, "logs": case.logs_tolerance}
    return table.judged(title, {kind: apart[kind] for kind in limits}, limits)


def _results(name, strategy):
    return strategy_cases.run(strategy_cases.CASES[name], strategy)


def _halves():
    """Names of two logical devices on the first GPU, or on the CPU where there is none."""
    gpus = tf.config.list_physical_devices("GPU")
    one = gpus[0] if gpus else tf.config.list_physical_devices("CPU")[0]
    limit = {"memory_limit": _MIB} if gpus else {}
    halves = [tf.config.LogicalDeviceConfiguration(**limit)] * 2
    tf.config.set_visible_devices(gpus[:1], "GPU")
    tf.config.set_logical_device_configuration(one, halves)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    return [f"{'GPU' if gpus else 'CPU'}:{number}" for number in range(2)]
