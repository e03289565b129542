"""Writes what the real TensorFlow Addons gives, for tests/circle_tf/addons to compare with.

    .venv-addons/bin/python -m tests.addons_stack.make_golden

Runs on the stack of `make test-addons` only. Inputs are multiples of 1/64, so that distances
without a root are exact and ties are ties on any machine. Angular ones are rounded, so that the
processor decides ties: TIES are compared on one machine, not with the file.
"""

import importlib.metadata
import json
import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

FOLDER = pathlib.Path(__file__).absolute().parents[1] / "circle_tf" / "addons"
COMMAND = ".venv-addons/bin/python -m tests.addons_stack.make_golden"
TIES = {("duplicates", "semihard angular"), ("duplicates", "hard angular")}
VERSIONS = ("tensorflow", "keras", "tensorflow-addons", "numpy")


def batches():
    """Returns {name: (ids, rows)}: random ones and the corners."""
    rng = np.random.default_rng(7)
    rows = np.round(rng.normal(size=(10, 4)) * 64) / 64
    doubled = rows[[0, 0, 0, 3, 3, 5, 6, 7, 7, 9]]
    zeros = rows * (np.arange(10) % 3 > 0)[:, None]
    far = np.round(rows[:6] * 64)
    return {
        "random": ([3, 1, 3, 2, 2, 1, 1, 3, 2, 3], rows),
        "close": ([3, 1, 3, 2, 2, 1, 1, 3, 2, 3], np.round(rows * 8) / 64),
        "large ids": ([2**40, 2**40 + 1, 2**40, 2**24, 2**24 + 1] * 2, rows),
        "no positives": (list(range(10)), rows),
        "one class": ([5] * 10, rows),
        "one negative": ([5] * 9 + [6], rows),
        "duplicates": ([0, 0, 1, 1, 2, 2, 0, 1, 2, 0], doubled),
        "zero rows": ([0, 0, 1, 1, 2, 2, 0, 1, 2, 0], zeros),
        "far": ([0, 0, 1, 1, 2, 2], far),
        "one example": ([4], rows[:1]),
        "two of a class": ([4, 4], rows[:2]),
        "two classes": ([4, 5], rows[:2]),
    }


def gram(rows):
    """Returns a distance function of a user's."""
    return tf.matmul(rows, rows, transpose_b=True)


def losses(tfa):
    """Returns {name: fn(ids, rows)} over `tfa`, the real package or its replacement."""
    found = {
        "lifted": lambda y, x: tfa.losses.LiftedStructLoss()(y, x),
        "lifted margin 0.25": lambda y, x: tfa.losses.lifted_struct_loss(y, x, margin=0.25),
        "npairs": lambda y, x: tfa.losses.NpairsLoss()(y, gram(x)),
        "multilabel": lambda y, x: tfa.losses.NpairsMultilabelLoss()(indicators(y), gram(x)),
        "contrastive": lambda y, x: tfa.losses.ContrastiveLoss(margin=2.0)(
            y % 2, tf.reduce_sum(x * x, axis=1)
        ),
    }
    metrics = {"L2": "L2", "squared-L2": "squared-L2", "angular": "angular", "callable": gram}
    for name, metric in metrics.items():
        options = {"margin": 0.5, "distance_metric": metric}
        semihard = tfa.losses.TripletSemiHardLoss(**options)
        found[f"semihard {name}"] = semihard
        found[f"hard {name}"] = tfa.losses.TripletHardLoss(**options)
    found["soft"] = lambda y, x: tfa.losses.triplet_hard_loss(y, x, soft=True)
    return found


def indicators(ids):
    """Returns labels `[B, 3]` of which an example has one or two."""
    return tf.stack([ids % 2 == 0, ids % 2 == 1, ids % 3 == 0], axis=1)


def value_and_gradient(loss, ids, rows):
    """Returns the loss and its gradient by rows, as NumPy arrays."""
    ids, rows = tf.constant(ids, tf.int64), tf.constant(rows, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = loss(ids, rows)
    return np.array(value), np.array(tape.gradient(value, rows))


def matrices(tfa, rows):
    """Returns {name: distance matrix}."""
    metric = tfa.losses.metric_learning
    rows = tf.constant(rows, tf.float32)
    return {
        "pairwise": metric.pairwise_distance(rows),
        "squared": metric.pairwise_distance(rows, squared=True),
        "angular": metric.angular_distance(rows),
    }


def steps(sparse):
    """Yields gradients of a `[6, 3]` table, with rows looked up twice."""
    rng = np.random.default_rng(3)
    for indices in ([0, 2, 2], [1, 2, 5], [0, 0, 0], [5, 4, 1], [2, 3, 4]):
        values = np.round(rng.normal(size=(3, 3)) * 64) / 64
        slices = tf.IndexedSlices(
            tf.constant(values, tf.float32), tf.constant(indices), tf.constant([6, 3])
        )
        yield slices if sparse else tf.convert_to_tensor(slices)


def trajectory(optimizer, *, sparse=False):
    """Returns the table after each step, and the variable."""
    table = tf.Variable(np.arange(18).reshape(6, 3) / 8 - 1, dtype=tf.float32)
    found = []
    for gradient in steps(sparse):
        optimizer.apply_gradients([(gradient, table)])
        found.append(table.numpy().tolist())
    return found, table


def _averaged(optimizer):
    _, table = trajectory(optimizer)
    optimizer.assign_average_vars([table])
    return table.numpy().tolist()


def optimizers(tfa):
    """Returns {name: what the real optimizer makes of the table}."""
    sgd = tf.keras.optimizers.legacy.SGD
    decayed = {"learning_rate": 0.1, "weight_decay": 0.01}
    return {
        "LazyAdam": trajectory(tfa.optimizers.LazyAdam(0.1), sparse=True)[0],
        "LAMB": trajectory(tfa.optimizers.LAMB(0.1, epsilon=1e-7))[0],
        "AdamW": trajectory(tfa.optimizers.AdamW(**decayed))[0],
        "SGDW": trajectory(tfa.optimizers.SGDW(**decayed))[0],
        "SWA": _averaged(tfa.optimizers.SWA(sgd(0.1), start_averaging=1, average_period=2)),
        "MovingAverage": _averaged(tfa.optimizers.MovingAverage(sgd(0.1), average_decay=0.75)),
    }


def _record(tfa):
    """Returns everything, as JSON can hold it."""
    found = {}
    for name, (ids, rows) in batches().items():
        results = {}
        for loss, function in losses(tfa).items():
            value, gradient = value_and_gradient(function, ids, rows)
            results[loss] = [_numbers(value), _numbers(gradient)]
        found[name] = {"ids": ids, "rows": np.array(rows).tolist(), "losses": results}
        found[name]["matrices"] = {k: _numbers(v) for k, v in matrices(tfa, rows).items()}
    return {"batches": found, "optimizers": optimizers(tfa)}


def _numbers(array):
    """Returns lists of 7 digits; NaN stays NaN, which Python's JSON reads and writes."""
    array = np.array(array, np.float64)
    return np.vectorize(lambda x: float(f"{x:.7g}"), otypes=[float])(array).tolist()


def main():
    """Writes golden.json beside the tests that read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
    origin = {name: importlib.metadata.version(name) for name in VERSIONS}
    stamp = str(np.datetime64("today"))
    golden = {"command": COMMAND, "versions": origin, "date": stamp, **_record(tfa)}
    text = (
        json.dumps(golden, separators=(",", ":")).replace('},"', '},\n"').replace(']],"', ']],\n"')
    )
    (FOLDER / "golden.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
