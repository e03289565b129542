"""A guard of speed: today's ratios beside those committed, in less than five minutes.

    make bench-quick
    python -m benchmarks.quick --case=memory --case=serving --strict
    python -m benchmarks.quick --write

Each case is a time as a ratio to a floor, or to what it is compared with, taken in turn in one
process; ratios drift less with the machine than times do. What is more than 1.3 times the committed
ratio is marked; look again in a quiet moment before you believe it. --strict makes the status 1
then. --write puts what was measured into benchmarks/quick.json.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import sys
import tempfile
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
import tqdm
from absl import app, flags, logging

import circle_tf
from benchmarks import steps, timing
from benchmarks.data import noisy_classes
from benchmarks.served import serving
from circle_tf import backbones
from circle_tf.evaluation import retrieval
from circle_tf.utils import files
from configs import glyphs
from export import client
from export.saved_model import session
from trainers.training import run_models

__all__ = ["CASES", "Case", "compared", "measure", "write"]

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quick.json")
SLOWER = 1.3
_LEAST = 0.02  # Seconds of a timing: what takes less is called several times.
_PAIR = {"margin": 0.4, "gamma": 80.0}
_IMAGE = (32, 32, 1)


@dataclasses.dataclass(frozen=True)
class Case:
    """One row.

    Args:
        what: what is timed, and what its time is divided by.
        make: from an `ExitStack` and sizes to two functions: what is timed, and the other.
        sizes: keyword arguments of `make`.
    """

    what: str
    make: Callable
    sizes: dict


def measure(case, *, seconds):
    """The ratio of a case.

    Args:
        case: Case.
        seconds: float, about how long its rounds may take; three are made anyway.

    Returns:
        float.
    """
    with contextlib.ExitStack() as stack:
        ways = dict(zip(("ours", "other"), case.make(stack, **case.sizes), strict=True))
        timers = {name: _timer(function) for name, function in ways.items()}
        rounds = int(np.clip(seconds / sum(timer() for timer in timers.values()), 3, 50))
        times = timing.interleaved(timers, rounds=rounds, warm_up=0)
    keras.backend.clear_session()
    return timing.ratio(times["ours"], times["other"])


def _timer(function):
    """A timer after two calls: the first compiles, the second tells how many a timing takes."""
    function()
    return timing.stopwatch(function, calls=max(1, int(_LEAST / timing.stopwatch(function)())))


def _pair(stack, *, rows, dim):
    del stack
    unit, ids = steps.make_batch(rows, dim)
    step, floor = steps.loss_step(circle_tf.CircleLoss(**_PAIR)), steps.pair_products(rows)
    return lambda: step(unit, ids)[0, 0].numpy(), lambda: floor(unit)[0, 0].numpy()


def _keras_circle(stack, *, rows, dim):
    del stack
    unit, ids = steps.make_batch(rows, dim)
    ours = steps.loss_step(circle_tf.CircleLoss(**_PAIR))
    theirs = steps.loss_step(keras.losses.Circle(**_PAIR), jit_compile=True)
    return lambda: ours(unit, ids)[0, 0].numpy(), lambda: theirs(unit, ids)[0, 0].numpy()


def _head(stack, *, classes, dim, rows, held):
    del stack
    unit, _ = steps.make_batch(rows, dim)
    random = np.random.default_rng(0)
    ids = tf.constant(random.integers(0, classes, rows))
    weights = random.standard_normal((classes, dim), np.float32)
    cosines = 4 * rows * classes
    budget = cosines if held else min(2**26, cosines - 1)
    head = steps.head_step(unit, ids, weights, max_bytes=budget)
    return head, steps.head_products(unit, weights)


def _update(stack, *, classes, dim, rows):
    del stack

    def step(fused):
        optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
        return steps.head_training_step(
            classes, rows=rows, dim=dim, optimizer=optimizer, fused_update=fused
        )

    return step(True), step(False)


def _memory(stack, *, size, rows, dim):
    del stack
    embeddings, labels = noisy_classes(rows=rows, dim=dim, per_class=4)
    step = steps.memory_step(embeddings, labels, size=size)
    return step, steps.memory_products(embeddings, size=size)


def _retrieval(stack, *, rows, dim):
    del stack
    z, ids = noisy_classes(rows=rows, dim=dim, per_class=5)
    chunk = max(1, 2**28 // (4 * rows))
    return (
        lambda: retrieval.retrieval_report(z, ids, ks=(1, 10)),
        lambda: steps.bare_search(z, z, k=11, chunk_size=chunk),
    )


def _sampler(stack, *, classes, batches):
    """Batches of 128 beside tf.data's own of the same images, shuffled."""
    del stack
    labels = np.repeat(np.arange(classes), 10)
    images = np.zeros([len(labels), *_IMAGE], np.uint8)
    plain = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels)).repeat()
    kinds = (
        circle_tf.pk_dataset(images, labels, classes_per_batch=32, examples_per_class=4),
        plain.batch(128).prefetch(tf.data.AUTOTUNE),
    )

    def taking(batch):
        return lambda: [next(batch) for _ in range(batches)]

    return [taking(iter(kind)) for kind in kinds]


def _training(stack, *, rows, count):
    """The trainer's model, metrics included, beside the same net as plain Keras has it."""
    del stack
    config = glyphs.get_config()
    ours = run_models.build(config, image_shape=_IMAGE, num_classes=10, steps=1000).training
    plain = _net(config.model)
    loss = keras.losses.Circle(gamma=config.loss.gamma, margin=config.loss.margin)
    plain.compile("adam", loss, jit_compile=ours.jit_compile)
    images = np.random.default_rng(0).uniform(0, 255, (rows, *_IMAGE)).astype(np.float32)
    data = tf.data.Dataset.from_tensors((images, np.arange(rows) // 4)).repeat()

    def fitting(model):
        return lambda: model.fit(data, steps_per_epoch=count, shuffle=False, verbose=0)

    return fitting(ours), fitting(plain)


def _net(model):
    backbone = backbones.build(model.backbone, _IMAGE)
    unit = circle_tf.UnitEmbedding(model.embedding_dim)(backbone.output)
    return keras.Model(backbone.input, unit)


def _serving(stack, *, rows):
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    path = os.path.join(folder, "glyphs", "1")
    os.makedirs(os.path.dirname(path))
    circle_tf.serving.save_servable(_net(glyphs.get_config().model), path)
    opened = stack.enter_context(session.SavedModelSession(path))
    _, name, address, _ = stack.enter_context(serving(path))
    asked = stack.enter_context(client.connect(address, model=name, timeout=60))
    images = np.random.default_rng(0).integers(0, 256, (rows, *_IMAGE)).astype(np.float32)
    return lambda: asked.predict({"images": images}), lambda: opened.run({"images": images})


_CLASSES = {"classes": 100_000, "dim": 128, "rows": 256}
CASES = {
    "pair": Case("CircleLoss, B 256, D 128 / two products", _pair, {"rows": 256, "dim": 128}),
    "pair_1024": Case(
        "CircleLoss, B 1,024, D 512 / two products", _pair, {"rows": 1024, "dim": 512}
    ),
    "keras_circle": Case(
        "CircleLoss / keras.losses.Circle under XLA, B 256, D 128",
        _keras_circle,
        {"rows": 256, "dim": 128},
    ),
    "held": Case("CircleHead, held, C 100,000 / three products", _head, {**_CLASSES, "held": True}),
    "streamed": Case(
        "CircleHead, streamed, C 100,000 / three products", _head, {**_CLASSES, "held": False}
    ),
    "update": Case("CircleHead's step, fused_update / dense, C 100,000", _update, _CLASSES),
    "memory": Case(
        "CrossBatchMemory, M 16,384 / two products",
        _memory,
        {"size": 16_384, "rows": 256, "dim": 128},
    ),
    "retrieval": Case(
        "retrieval_report, 10,000 x 512 / product and top-k",
        _retrieval,
        {"rows": 10_000, "dim": 512},
    ),
    "sampler": Case(
        "pk_dataset / tf.data shuffled, batches of 128 from arrays",
        _sampler,
        {"classes": 1000, "batches": 50},
    ),
    "training": Case(
        "step of configs/glyphs.py / the net in plain Keras", _training, {"rows": 128, "count": 5}
    ),
    "serving": Case("gRPC / session, batch 64", _serving, {"rows": 64}),
}


def compared(ratios, committed):
    """Rows of the table, and the names of the cases that are slower than they were.

    Args:
        ratios: dict of name to today's ratio.
        committed: dict of name to entry, as of `quick.json`.

    Returns:
        (list of lists, list of str).

    Example:
        >>> compared({"pair": 3.0}, {"pair": {"ratio": 2.0}})[1]
        ['pair']
    """
    rows, slower = [], []
    for name, ratio in ratios.items():
        before = committed[name]["ratio"] if name in committed else None
        if before and ratio > SLOWER * before:
            slower.append(name)
        change = [before, ratio, ratio / before] if before else ["-", ratio, "-"]
        rows.append([name, CASES[name].what, *change, "slower" if name in slower else ""])
    return rows, slower


def write(path, ratios, committed):
    """Puts today's ratios, machine and date into the file; other cases keep theirs."""
    today = {"date": datetime.date.today().isoformat(), "machine": machine()}
    new = {name: {"ratio": float(f"{ratio:.3g}"), **today} for name, ratio in ratios.items()}
    found = {name: {**committed, **new}[name] for name in CASES if name in {**committed, **new}}
    with files.replacing(path) as partial, open(partial, "w", encoding="utf-8") as stream:
        json.dump(found, stream, indent=2)
        stream.write("\n")


def machine():
    """Processor, cores and versions in one line."""
    names = ["unknown processor"]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        names = [line.partition(": ")[2].strip() for line in lines if line[:10] == "model name"]
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    return f"{os.cpu_count()} cores, {names[0]}, {versions}"


def _committed(path):
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as stream:
        return json.load(stream)


def define_flags():
    """Defines the flags when this is the command: others have flags of the same names."""
    flags.DEFINE_multi_enum("case", list(CASES), list(CASES), "What to measure.")
    flags.DEFINE_float("seconds", 8.0, "About how long the rounds of a case take.", 0.0)
    flags.DEFINE_bool("strict", False, "End with status 1 if a case is slower.")
    flags.DEFINE_bool("write", False, "Put what was measured into benchmarks/quick.json.")


def main(_):
    """Measures and prints the table."""
    logging.set_verbosity(logging.ERROR)  # Saving a model tells of every step.
    tf.get_logger().setLevel("ERROR")
    options, committed, ratios = flags.FLAGS, _committed(PATH), {}
    with tqdm.tqdm(options.case, unit="case", disable=None) as bar:
        for name in bar:
            bar.set_description(name)
            ratios[name] = measure(CASES[name], seconds=options.seconds)
    rows, slower = compared(ratios, committed)
    print(machine())
    timing.print_table(["case", "what", "committed", "today", "today / committed", ""], rows)
    if options.write:
        write(PATH, ratios, committed)
    if slower:
        print(f"slower than {SLOWER} times what is committed: {', '.join(slower)}", file=sys.stderr)
    return 1 if slower and options.strict else 0


if __name__ == "__main__":
    define_flags()
    app.run(main)
