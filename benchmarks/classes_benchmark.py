r"""Whole training steps of `CircleHead` at 10,000 to 1,000,000 classes: time and peak memory.

    python -m benchmarks.classes_benchmark
    python -m benchmarks.classes_benchmark --classes=1000000 --way=sample_rate=0.1 \
        --max_bytes=67108864 --optimizer=adam

A step is losses, gradients by embeddings and class weights, and the optimizer's update. Each size
and way runs in a process of its own, whose peak memory is read; given is what it holds beyond
class weights, the optimizer's moments and TensorFlow itself.
"""

import json
import resource
import subprocess
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

from benchmarks import steps, timing

_CLASSES = flags.DEFINE_multi_integer("classes", [10_000, 100_000, 1_000_000], "Classes C.")
_WAYS = flags.DEFINE_multi_string(
    "way", ["dense", "fused", "sample_rate=0.1"], "What a step looks at; fused: fused_update=True."
)
_OPTIMIZER = flags.DEFINE_enum("optimizer", "sgd", ["sgd", "adam"], "SGD has a momentum of 0.9.")
_MAX_BYTES = flags.DEFINE_integer("max_bytes", 2**28, "Budget for cosines, as of CircleHead.")
_PRODUCT_DTYPE = flags.DEFINE_enum("product_dtype", None, ["bfloat16"], "As of CircleHead.")
_DIM = flags.DEFINE_integer("dim", 512, "Numbers per embedding D.", lower_bound=1)
_ROWS = flags.DEFINE_integer("rows", 512, "Batch B.", lower_bound=2)
_STEPS = flags.DEFINE_integer("steps", 5, "Steps timed, after two.", lower_bound=1)
_CASE = flags.DEFINE_bool("case", False, "Measure the one case given, print JSON (internal).")
_MOMENTS = {"sgd": 1, "adam": 2}


def training_step(classes, way):
    """A function that does one step and returns its loss."""
    name, _, rate = way.partition("=")
    return steps.head_training_step(
        classes,
        rows=_ROWS.value,
        dim=_DIM.value,
        optimizer=_optimizer(),
        sample_rate=float(rate or 1),
        fused_update=name == "fused",
        max_bytes=_MAX_BYTES.value,
        product_dtype=_PRODUCT_DTYPE.value,
    )


def _optimizer():
    if _OPTIMIZER.value == "sgd":
        return keras.optimizers.SGD(0.01, momentum=0.9)
    return keras.optimizers.Adam(1e-3)


def measure():
    """Prints seconds a step and the peak, of the one case, as JSON."""
    tf.random.normal([8, 8]) @ tf.random.normal([8, 8])  # What TensorFlow itself needs.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = training_step(_CLASSES.value[0], _WAYS.value[0])
    losses = [step(), step()]
    times = []
    for _ in range(_STEPS.value):
        start = time.perf_counter()
        losses.append(step())
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": times, "mib": (peak - before) / 2**10, "losses": losses}))


def run_case(classes, way):
    """What `measure` prints, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.classes_benchmark", "--case"]
    command += [f"--classes={classes}", f"--way={way}", f"--optimizer={_OPTIMIZER.value}"]
    command += [f"--{flag.name}={flag.value}" for flag in (_DIM, _ROWS, _STEPS, _MAX_BYTES)]
    if _PRODUCT_DTYPE.value:
        command.append(f"--product_dtype={_PRODUCT_DTYPE.value}")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(_):
    """Prints the table."""
    if _CASE.value:
        measure()
        return
    print(f"D = {_DIM.value}, B = {_ROWS.value}, {_OPTIMIZER.value}, float32\n")
    rows, dense = [], {}
    for classes in _CLASSES.value:
        for way in _WAYS.value:
            found = run_case(classes, way)
            seconds = float(np.median(found["seconds"]))
            dense.setdefault(classes, seconds)
            held = 4 * classes * _DIM.value * (1 + _MOMENTS[_OPTIMIZER.value]) / 2**20
            rows.append(
                [f"{classes:,}", way, 1e3 * seconds, 1e9 * seconds / classes / _DIM.value]
                + [dense[classes] / seconds, held, found["mib"] - held]
            )
    timing.print_table(
        ["C", "step", "ms", "ns per class and dimension", "times cheaper"]
        + ["weights and moments, MiB", "peak beyond them, MiB"],
        rows,
    )


if __name__ == "__main__":
    app.run(main)
