"""What replicas cost: step times side by side, and bytes exchanged against the least there can be.

    python -m benchmarks.strategy_benchmark
    python -m benchmarks.strategy_benchmark --part=head --batch=512

On one device: EmbeddingModel's `fit` against stock `keras.Model.fit` and a bare tf.function step.
Over replicas: Mirrored(2) and 2 worker processes against one device at the same global batch (all
on the processors of this machine: the figures show overhead, not what more machines gain). Before
their `fit` stand bare steps of the same net, each with one part more: what TensorFlow takes.
`head`: `fit` of a `CircleHead` alone, its classes on one device and spread over two replicas.
"""

import json
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags

import circle_tf
from benchmarks import timing

_PART = flags.DEFINE_enum("part", "steps", ["steps", "head"], "What to measure.")
_CLASSES = flags.DEFINE_integer("classes", 100_000, "head: classes.", lower_bound=2)
_BATCH = flags.DEFINE_integer("batch", 128, "Rows of the global batch.", lower_bound=4)
_WIDTH = flags.DEFINE_integer("width", 512, "Units of the hidden layers.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 100, "Steps to measure in an epoch.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 9, "Epochs, of which the median counts.", lower_bound=1)
_ROLE = flags.DEFINE_string("worker_output", None, "Set for the worker processes it starts.")
_FEATURES, _DIM = 256, 128
_HEAD_STEPS = 4  # Of an epoch: each takes as long as dozens of the net's.


def build(kind, strategy, jit=False):
    """The same model as a stock one or as an EmbeddingModel."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features = x = keras.Input((_FEATURES,))
        for _ in range(3):
            x = keras.layers.Dense(_WIDTH.value, "relu")(x)
        model = kind(features, circle_tf.UnitEmbedding(_DIM)(x))
        model.compile(keras.optimizers.SGD(0.01), circle_tf.CircleLoss(), jit_compile=jit)
    return model


def build_head(strategy, **options):
    """A model of unit embeddings and a `CircleHead` that trains with momentum."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features, ids = keras.Input((_FEATURES,)), keras.Input((), dtype="int64")
        head = circle_tf.CircleHead(_CLASSES.value, as_model_loss=True, **options)
        losses = head((circle_tf.UnitEmbedding(_DIM)(features), ids))
        model = circle_tf.EmbeddingModel([features, ids], losses)
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    return model


def dataset(steps=None):
    """`steps` batches of made-up features."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_BATCH.value, _FEATURES)).astype(np.float32)
    ids = np.arange(_BATCH.value) // 4
    batch = tf.data.Dataset.from_tensors((rows, ids)).repeat(steps or _STEPS.value).unbatch()
    return batch.batch(_BATCH.value, drop_remainder=True).prefetch(4)


def fit_timer(model, data=None):
    """Times of an epoch of `fit`."""
    data = data or dataset()
    return timing.stopwatch(lambda: model.fit(data, epochs=1, verbose=0, shuffle=False))


def head_times(one, mirrored):
    """Seconds of an epoch of a head's `fit`: dict of a row to them, by round."""
    data = dataset(_HEAD_STEPS).map(lambda rows, ids: ((rows, ids), ids))
    cases = {
        "one device": (one, {}),
        "one device, `fused_update`": (one, {"fused_update": True}),
        "Mirrored(2), shards": (mirrored, {"shards": "replicas"}),
        "Mirrored(2), shards, `fused_update`": (
            mirrored,
            {"shards": "replicas", "fused_update": True},
        ),
    }
    models = {name: build_head(strategy, **options) for name, (strategy, options) in cases.items()}
    timers = {name: fit_timer(model, data) for name, model in models.items()}
    return timing.interleaved(timers, rounds=_ROUNDS.value)


def bare_timer():
    """Times of an epoch in a plain loop: what `fit` can at best come to."""
    model = build(keras.Model, tf.distribute.get_strategy())
    loss, optimizer = circle_tf.CircleLoss(), keras.optimizers.SGD(0.01)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(rows, ids):
        with tf.GradientTape() as tape:
            value = loss(ids, model(rows, training=True))
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(value, [w.value for w in weights]), weights)
        return value

    data = dataset()

    def epoch():
        for rows, ids in data:
            value = step(rows, ids)
        value.numpy()

    return timing.stopwatch(epoch)


def part_timers(strategy):
    """Times of an epoch of bare steps over replicas, from the net alone to all but Circle loss."""
    return {
        "its net, forward and backward": _part_timer(strategy, "net"),
        "and the gradients summed": _part_timer(strategy, "sum"),
        "and applied, by Keras alone": _part_timer(strategy, "apply"),
    }


def _part_timer(strategy, part):
    model = build(keras.Model, strategy)
    variables = model.trainable_variables
    with strategy.scope():
        optimizer = keras.optimizers.SGD(0.01)
        optimizer.build(variables)

    def replica_step(rows):
        with tf.GradientTape() as tape:
            # Any loss of each row by itself: Circle loss would gather.
            loss = tf.reduce_sum(tf.square(model(rows, training=True)[:, 0]))
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        if part == "sum":
            gradients = tf.distribute.get_replica_context().all_reduce("sum", gradients)
        if part == "apply":
            optimizer.apply(gradients, variables)  # Which sums them itself.
        with tf.control_dependencies(gradients):
            return tf.identity(loss)

    @tf.function
    def step(rows):
        return strategy.reduce("sum", strategy.run(replica_step, args=(rows,)), axis=None)

    data = strategy.experimental_distribute_dataset(dataset())

    def epoch():
        for rows, _ in data:
            value = step(rows)
        value.numpy()

    return timing.stopwatch(epoch)


def exchanged_bytes(strategy):
    """`(bytes, least)` a replica hands to collectives in a step, and those it cannot do without.

    Counted in the traced step: what goes into each all-reduce and all-gather.
    """
    model = build(circle_tf.EmbeddingModel, strategy)
    rows = _BATCH.value // strategy.num_replicas_in_sync
    handed = []
    reduce, gather = (
        tf.distribute.ReplicaContext.all_reduce,
        tf.distribute.ReplicaContext.all_gather,
    )

    def counting(collective, place, unknown):
        def call(*args, **kwargs):
            for value in tf.nest.flatten(args[place]):
                shape = [size or unknown for size in value.shape.as_list()]
                handed.append(int(np.prod(shape)) * value.dtype.size)
            return collective(*args, **kwargs)

        return call

    tf.distribute.ReplicaContext.all_reduce = counting(reduce, 2, _BATCH.value)
    tf.distribute.ReplicaContext.all_gather = counting(gather, 1, rows)
    try:
        model.fit(dataset().take(1), epochs=1, verbose=0, shuffle=False)
    finally:
        tf.distribute.ReplicaContext.all_reduce = reduce
        tf.distribute.ReplicaContext.all_gather = gather
    weights = sum(int(np.prod(w.shape)) * 4 for w in model.trainable_variables)
    # The gradient of a gather reduces what was gathered: N rows, of which the n own are kept.
    embeddings = (rows + _BATCH.value) * _DIM * 4
    return sum(handed) // strategy.num_replicas_in_sync, weights + embeddings + rows * 8


def run_workers():
    """Seconds of an epoch of two worker processes: dict of a row to them, by round."""
    from benchmarks import strategy_cases

    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "time.json")
        names = ("batch", "width", "steps", "rounds")
        arguments = [f"--{name}={flags.FLAGS[name].value}" for name in names]
        workers = strategy_cases.start_workers(
            [f"--worker_output={output}", *arguments],
            workers=2,
            module="benchmarks.strategy_benchmark",
        )
        strategy_cases.wait_for(workers, timeout=900)
        with open(output, encoding="utf-8") as stream:
            return json.load(stream)


def _print_table(times, first, *, steps):
    base, *_ = times.values()
    timing.print_table(
        ("", "ms a step", f"ratio to {first}"),
        [
            (name, float(np.median(found)) / steps * 1e3, timing.ratio(found, base))
            for name, found in times.items()
        ],
    )


def main(_):
    """Prints the tables."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if _ROLE.value:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        timers = part_timers(strategy)
        timers["`EmbeddingModel.fit`"] = fit_timer(build(circle_tf.EmbeddingModel, strategy))
        times = timing.interleaved(timers, rounds=_ROUNDS.value)
        result = {name: found.tolist() for name, found in times.items()}
        if json.loads(os.environ["TF_CONFIG"])["task"]["index"] == 0:
            with open(_ROLE.value, "w", encoding="utf-8") as stream:
                json.dump(result, stream)
        return
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    one = tf.distribute.get_strategy()
    if _PART.value == "head":
        print(f"global batch {_BATCH.value}, {_CLASSES.value:,} classes, embedding {_DIM}")
        _print_table(head_times(one, mirrored), "one device", steps=_HEAD_STEPS)
        return
    timers = {
        "one device, bare `tf.function` step": bare_timer(),
        "one device, stock `fit`": fit_timer(build(keras.Model, one)),
        "one device, `EmbeddingModel.fit`": fit_timer(build(circle_tf.EmbeddingModel, one)),
        **{f"Mirrored(2): {name}": timer for name, timer in part_timers(mirrored).items()},
        "Mirrored(2): `EmbeddingModel.fit`": fit_timer(build(circle_tf.EmbeddingModel, mirrored)),
    }
    times = timing.interleaved(timers, rounds=_ROUNDS.value)
    # The workers share the processors with nobody: they have their turn after the others.
    times.update({f"2 workers: {name}": np.array(by) for name, by in run_workers().items()})
    print(f"global batch {_BATCH.value}, 3 hidden layers of {_WIDTH.value}, embedding {_DIM}")
    _print_table(times, "bare", steps=_STEPS.value)
    handed, least = exchanged_bytes(mirrored)
    print(f"bytes a replica hands over in a step: {handed:,}; the least: {least:,}")


if __name__ == "__main__":
    app.run(main)
