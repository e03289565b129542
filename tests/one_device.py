"""What the cases of training come to on one device, which all strategies are held to."""

import functools
import hashlib
import json
import os
import pathlib

import tensorflow as tf

from benchmarks import strategy_cases
from circle_tf.utils import files

__all__ = ["differences", "results"]


@functools.cache
def results(name, base):
    """Results of a case by name; worked out once for all workers of a test run.

    Args:
        name: of `strategy_cases.CASES`.
        base: the run's folder of temporary files, `tmp_path_factory.getbasetemp()`.
    """
    folder = pathlib.Path(base)
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # The workers' common one.
    path = folder / f"one_device_{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    if not path.exists():
        found = strategy_cases.run(strategy_cases.CASES[name], tf.distribute.get_strategy())
        with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
            json.dump(found, stream)
    return json.loads(path.read_text(encoding="utf-8"))


def differences(name, found, base):
    """What differs from one device by more than the case allows: `{}` where nothing does.

    Of a loss of 20, float32 holds no more than 1e-6 of its value.
    """
    case = strategy_cases.CASES[name]
    apart = strategy_cases.differences(found, results(name, base))
    limits = {"weights": case.tolerance, "logs": case.logs_tolerance, "evaluate": 1e-6}
    return {kind: apart[kind] for kind, limit in limits.items() if not apart[kind] <= limit}
