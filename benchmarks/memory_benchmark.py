"""Cross-batch memory beside its matrix products, and cached gradients in time and memory.

    python -m benchmarks.memory_benchmark
    python -m benchmarks.memory_benchmark --part=cached --batch=8192 --cached_gradient_batch=256

`memory`: one step (losses, gradients, filling) against B + M keys, in turn with the two products
that any exact step must do (`Z Kt`, `dS K`), and with pytorch-metric-learning's CrossBatchMemory
under peers' Python (`make bench-peers`). `cached`: steps of the 4-conv net on 32 x 32 images, each
way in a process of its own, whose peak memory is read (beyond model and images).
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

import circle_tf
from benchmarks import peers, steps, timing
from benchmarks.data import noisy_classes
from circle_tf import backbones

_PART = flags.DEFINE_enum("part", "all", ["all", "memory", "cached"], "What to measure.")
_ROWS = flags.DEFINE_integer("rows", 256, "memory: batch B.", lower_bound=2)
_DIM = flags.DEFINE_integer("dim", 128, "memory: numbers per embedding D.", lower_bound=1)
_SIZES = flags.DEFINE_multi_integer("size", [4096, 16384, 65536], "memory: rows held, M.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "memory: rounds of timings.", lower_bound=1)
_PEERS = flags.DEFINE_bool("peers", True, "memory: time pytorch-metric-learning too.")
_BATCH = flags.DEFINE_integer("batch", 8192, "cached: images of a large batch.", lower_bound=2)
_CACHED = flags.DEFINE_integer("cached_gradient_batch", 256, "cached: images held.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 2, "cached: steps timed, after one.", lower_bound=1)
_CASE = flags.DEFINE_string("case", None, "cached: 'batch,held' of this process (internal).")
_OPTIONS = {"margin": 0.25, "gamma": 80.0}


def measure_memory():
    """Prints the table of the cross-batch memory."""
    embeddings, labels = noisy_classes(rows=_ROWS.value, dim=_DIM.value, per_class=4)
    rows = []
    peer = None
    if _PEERS.value:
        inputs = {"embeddings": embeddings, "labels": labels}
        peer = peers.Peer("benchmarks.memory_peers", inputs=inputs)
    for size in _SIZES.value:
        timers = {
            "products": timing.stopwatch(steps.memory_products(embeddings, size=size), calls=3),
            "ours": timing.stopwatch(steps.memory_step(embeddings, labels, size=size), calls=3),
        }
        if peer:
            timers["peer"] = peer.timer("memory_step", size=size)
        times = timing.interleaved(timers, rounds=_ROUNDS.value)
        floor, ours = times["products"], times["ours"]
        others = (
            [timing.ratio(times["peer"], kind) for kind in (floor, ours)] if peer else ["-"] * 2
        )
        rows.append([size, 1e3 * float(np.median(floor)), timing.ratio(ours, floor), *others])
    if peer:
        peer.close()
    print(f"B = {_ROWS.value}, D = {_DIM.value}, float32")
    header = ["M", "products, ms", "CrossBatchMemory, x", "PML, x", "PML / ours"]
    timing.print_table(header, rows)


def measure_cached():
    """Prints the table of cached gradients; each way runs in a process of its own."""
    cases = [(_CACHED.value, None), (_BATCH.value, None), (_BATCH.value, _CACHED.value)]
    results = []
    for batch, held in cases:
        command = [sys.executable, "-m", "benchmarks.memory_benchmark", "--part=cached"]
        command += [f"--case={batch},{held or 0}", f"--steps={_STEPS.value}"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    per_image = results[1]["seconds"] / _BATCH.value
    timing.print_table(
        ["batch", "cached_gradient_batch", "peak beyond model and images, MiB", "s a step", "x"],
        [
            [b, held or "-", result["mib"], result["seconds"], result["seconds"] / b / per_image]
            for (b, held), result in zip(cases, results, strict=True)
        ],
    )
    print("x: time per image, as a ratio to the plain large batch.")


def train_steps(batch, held, *, steps):
    """Seconds of a step and MiB of peak memory that training takes here."""
    backbone = backbones.build("conv4", (32, 32, 1))
    unit = circle_tf.UnitEmbedding(128)(backbone.output)
    model = circle_tf.EmbeddingModel(backbone.input, unit)
    model.compile("adam", circle_tf.CircleLoss(**_OPTIONS), cached_gradient_batch=held)
    images = np.random.default_rng(0).uniform(0, 255, (batch, 32, 32, 1)).astype(np.float32)
    dataset = tf.data.Dataset.from_tensors((images, np.arange(batch) // 4)).repeat(1 + steps)
    before, start = _resident_mib(), []
    callback = _Clock(start)
    model.fit(dataset, shuffle=False, verbose=0, callbacks=[callback])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": float(np.min(np.diff(start))), "mib": peak - before}


class _Clock(keras.callbacks.Callback):
    """Notes when each batch ended."""

    def __init__(self, times):
        super().__init__()
        self._times = times

    def on_train_batch_end(self, batch, logs=None):
        """Notes the time."""
        self._times.append(time.perf_counter())


def _resident_mib():
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def main(_):
    """Prints the tables that were asked for."""
    if _CASE.value:
        batch, held = map(int, _CASE.value.split(","))
        print(json.dumps(train_steps(batch, held or None, steps=_STEPS.value)))
        return
    if _PART.value != "cached":
        measure_memory()
    if _PART.value != "memory":
        measure_cached()


if __name__ == "__main__":
    app.run(main)
