"""Runs sections of the check in a process of their own, and prints their rows, one JSON a line.

Started by `benchmarks.gpu_check`, so that what crashes or hangs takes nothing else with it, and
each section finds the memory of the GPU free:

    python -m benchmarks.gpu.worker '{"sections": ["values"], "small": null, "seconds": 60}'
"""

import dataclasses
import importlib
import json
import sys
import time

import tensorflow as tf

from benchmarks.gpu import table

__all__ = ["Limits"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a section is held to.

    Args:
        small: sizes for a CPU and for tests.
        ends: time of `time.monotonic` after which nothing should begin.
    """

    small: bool
    ends: float

    def left(self):
        """Seconds left, negative when time is up."""
        return self.ends - time.monotonic()

    def skips(self, case, *, needs=0):
        """The row of a case that is skipped for want of time; None where it has `needs` seconds."""
        if self.left() > needs:
            return None
        wanted = f": it wants about {needs} s" if needs else ""
        return table.skipped(case, f"time is up{wanted}; give more --minutes")


def main():
    """Answers on what was standard output; what libraries print there goes to standard error."""
    answers, sys.stdout = sys.stdout, sys.stderr
    asked = json.loads(sys.argv[1])
    gpus = tf.config.list_physical_devices("GPU")
    if "replicas" not in asked["sections"]:  # There memory is cut in two instead.
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    small = not gpus if asked["small"] is None else asked["small"]
    limits = Limits(small, time.monotonic() + asked["seconds"])
    for name in asked["sections"]:
        table.run(
            name,
            lambda name=name: importlib.import_module(f"benchmarks.gpu.{name}").rows(limits),
            lambda row: print(json.dumps(row), file=answers, flush=True),
        )


if __name__ == "__main__":
    main()
