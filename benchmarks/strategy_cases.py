"""What must come out the same under every strategy: the cases, and how each is run.

`tests/circle_tf` holds them to tolerances, `benchmarks/strategy_equality.py` prints them.
"""

import concurrent.futures
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

import circle_tf

EPOCHS = 4
BATCH = 16
_CLASSES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """A training run on `rows` examples in global batches of 16.

    43 rows leave a last batch of 11: 6 and 5 on 2 replicas. 33 leave 1: one replica gets none.
    """

    name: str
    loss: Callable = lambda: circle_tf.CircleLoss(gamma=16.0)
    optimizer: Callable = lambda: keras.optimizers.SGD(0.02, momentum=0.9)
    head: str = "embedding"
    rows: int = 43
    policy: str = "float32"
    weighted: bool = False
    bad_row: int | None = None
    fused: bool = False
    metrics: bool = False
    evaluate: bool = False
    compile: dict = dataclasses.field(default_factory=dict)
    tolerance: float = 1e-5
    logs_tolerance: float = 1e-5


def _sgd(**options):
    return lambda: keras.optimizers.SGD(0.02, momentum=0.9, **options)


def _half(**options):
    # Growth every 3 steps: the run sees the scale rise. It stays clear of the overflow of a sum in
    # half precision, which comes earlier over 16 rows than over twice 8.
    return lambda: keras.optimizers.LossScaleOptimizer(
        _sgd(**options)(), initial_scale=2.0**6, dynamic_growth_steps=3
    )


_CLASS_LOSS = {"loss": lambda: circle_tf.ClassCircleLoss(gamma=16.0), "head": "classes"}
# 5 classes do not divide over 2 replicas: the second one's last row fills up.
_SHARDS = {"loss": lambda: None, "head": "shards"}
_AVERAGED = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3}
_PLAIN_LOSS = {"loss": lambda: keras.losses.SparseCategoricalCrossentropy(), "head": "softmax"}

CASES = {
    case.name: case
    for case in (
        Case("CircleLoss", metrics=True, evaluate=True),
        Case("ClassCircleLoss", evaluate=True, **_CLASS_LOSS),
        Case("plain Keras loss", evaluate=True, **_PLAIN_LOSS),
        Case("CircleHead over replicas", evaluate=True, **_SHARDS),
        Case(
            "CircleHead over replicas, fused_update, AdamW",
            optimizer=lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
            rows=33,
            fused=True,
            evaluate=True,
            **_SHARDS,
        ),
        Case(
            "CircleHead over replicas, global_clipnorm",
            optimizer=_sgd(global_clipnorm=0.05),
            **_SHARDS,
        ),
        Case(
            "CircleHead over replicas, clipnorm", optimizer=_sgd(clipnorm=0.05), rows=33, **_SHARDS
        ),
        Case(
            "CircleHead over replicas, gradient_accumulation=2, Adam",
            optimizer=lambda: keras.optimizers.Adam(0.01),
            compile={"gradient_accumulation": 2},
            **_SHARDS,
        ),
        Case(
            "CircleHead over replicas, mixed_float16",
            policy="mixed_float16",
            optimizer=_half(),
            bad_row=30,
            tolerance=1e-2,
            logs_tolerance=1e-2,
            **_SHARDS,
        ),
        Case(
            "averaged weights, gradient_accumulation=2",
            optimizer=_sgd(**_AVERAGED),
            compile={"gradient_accumulation": 2},
        ),
        Case(
            "averaged weights, steps_per_execution=2",
            compile={"steps_per_execution": 2},
            optimizer=_sgd(**_AVERAGED),
        ),
        Case(
            "averaged weights, CircleHead over replicas, mixed_float16",
            policy="mixed_float16",
            optimizer=_half(**_AVERAGED),
            bad_row=30,
            tolerance=1e-2,
            logs_tolerance=1e-2,
            **_SHARDS,
        ),
        Case("CircleLoss, XLA", compile={"jit_compile": True}),
        Case("plain Keras loss, XLA", rows=32, compile={"jit_compile": True}, **_PLAIN_LOSS),
        Case("clipnorm", optimizer=_sgd(clipnorm=0.05)),
        Case("global_clipnorm", optimizer=_sgd(global_clipnorm=0.05)),
        Case("clipvalue", optimizer=_sgd(clipvalue=0.01)),
        Case("a replica without rows", rows=33),
        Case("a replica without rows, class", rows=33, **_CLASS_LOSS),
        Case(
            "keras.losses.Circle, a replica without rows",
            loss=lambda: keras.losses.Circle(gamma=8.0),
            rows=33,
            weighted=True,
            evaluate=True,
        ),
        Case("sample_weight", weighted=True),
        Case("sample_weight, plain Keras loss", weighted=True, **_PLAIN_LOSS),
        Case(
            "reduction none",
            loss=lambda: circle_tf.CircleLoss(gamma=16.0, reduction="none"),
            optimizer=lambda: keras.optimizers.SGD(0.001),
        ),
        Case(
            "CrossBatchCircleLoss",
            loss=lambda: circle_tf.CrossBatchCircleLoss(50, gamma=16.0, start_step=2),
            evaluate=True,
        ),
        Case(
            "CrossBatchCircleLoss, a replica without rows, XLA",
            loss=lambda: circle_tf.CrossBatchCircleLoss(7, gamma=16.0, block_size=None),
            rows=33,
            compile={"jit_compile": True},
        ),
        Case("cached_gradient_batch=3", metrics=True, compile={"cached_gradient_batch": 3}),
        Case(
            "cached_gradient_batch=3, a replica without rows, XLA",
            rows=33,
            compile={"cached_gradient_batch": 3, "jit_compile": True},
        ),
        Case("gradient_accumulation=2", compile={"gradient_accumulation": 2}),
        Case("steps_per_execution=2", compile={"steps_per_execution": 2}),
        Case(
            "mixed_float16",
            policy="mixed_float16",
            optimizer=_half(),
            tolerance=1e-2,
            logs_tolerance=1e-2,
        ),
        Case(
            "mixed_float16, inf on one replica",
            policy="mixed_float16",
            optimizer=_half(),
            bad_row=30,
            tolerance=1e-2,
            logs_tolerance=1e-2,
        ),
        Case(
            "mixed_float16, XLA",
            policy="mixed_float16",
            optimizer=_half(),
            compile={"jit_compile": True},
            tolerance=1e-2,
            logs_tolerance=1e-2,
        ),
        Case("mixed_bfloat16", policy="mixed_bfloat16", tolerance=6e-2, logs_tolerance=6e-2),
    )
}


def run(case: Case, strategy: tf.distribute.Strategy) -> dict[str, list[float]]:
    """Fits and evaluates under a strategy: everything that must not depend on it."""
    model = build(case, strategy)
    rows, ids, weights = data(case)
    options = {"sample_weight": weights, "batch_size": BATCH, "verbose": 0}
    updates = _Updates()
    if case.head == "shards":
        rows, ids = [rows, ids], None
    history = model.fit(
        rows, ids, epochs=EPOCHS, shuffle=False, callbacks=[updates], **options
    ).history
    results = {f"fit {name}": values for name, values in history.items()}
    if case.evaluate:
        evaluated = model.evaluate(rows, ids, return_dict=True, **options)
        results |= {f"evaluate {name}": [value] for name, value in evaluated.items()}
    results["weights"] = np.concatenate([w.ravel() for w in model.get_weights()]).tolist()
    if model.memory:
        results["memory"] = np.concatenate([w.ravel() for w in model.memory.get_weights()]).tolist()
    return {**results, **updates.results}


class _Updates(keras.callbacks.Callback):
    """After each batch: how many updates were applied, and the scale of the loss."""

    def __init__(self):
        super().__init__()
        self.results = {"iterations": []}

    def on_train_batch_end(self, batch, logs=None):
        del batch, logs
        optimizer = self.model.optimizer
        self.results["iterations"].append(int(optimizer.iterations.numpy()))
        if hasattr(optimizer, "dynamic_scale"):
            scale = float(optimizer.dynamic_scale.numpy())
            self.results.setdefault("loss scale", []).append(scale)


def build(case: Case, strategy: tf.distribute.Strategy) -> circle_tf.EmbeddingModel:
    """The case's compiled model, made under the strategy, always with the same weights."""
    with strategy.scope():
        keras.utils.set_random_seed(0)
        features = keras.Input((6,))
        hidden = keras.layers.Dense(8, "relu", dtype=case.policy)(features)
        outputs = circle_tf.UnitEmbedding(4, dtype=case.policy)(hidden)
        if case.head == "classes":
            outputs = circle_tf.CosineClassifier(_CLASSES)(outputs)
        if case.head == "softmax":
            outputs = keras.layers.Dense(_CLASSES, "softmax", dtype="float32")(outputs)
        if case.head == "shards":
            ids = keras.Input((), dtype="int64")
            head = circle_tf.CircleHead(
                5, gamma=16.0, shards="replicas", as_model_loss=True, fused_update=case.fused
            )
            features, outputs = [features, ids], head((outputs, ids))
        model = circle_tf.EmbeddingModel(features, outputs)
        metrics = circle_tf.metrics.monitors(margin=0.4) if case.metrics else None
        model.compile(case.optimizer(), case.loss(), metrics=metrics, **case.compile)
    return model


def data(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The case's rows, ids and weights, the same in every process."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(case.rows, 6)).astype(np.float32)
    if case.bad_row is not None:
        rows[case.bad_row] = 1e38
    weights = rng.uniform(0.5, 2.0, size=case.rows).astype(np.float32) if case.weighted else None
    return rows, np.arange(case.rows) % _CLASSES, weights


def differences(results: dict, expected: dict) -> dict[str, float]:
    """Largest absolute difference of weights, and of logs; relative, of what `evaluate` found.

    nan equals nan. Applied updates and loss scales must be the same after each batch: inf if not.
    """
    found = {"weights": 0.0, "logs": 0.0, "evaluate": 0.0}
    for name, values in expected.items():
        ours, theirs = np.asarray(results[name]), np.asarray(values)
        if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
            found["logs" if name != "weights" else name] = float("inf")
            continue
        apart = float(np.nan_to_num(np.abs(ours - theirs)).max())
        if name in ("iterations", "loss scale"):
            apart = 0.0 if apart == 0 else float("inf")
        kind = "weights" if name == "weights" else "logs"
        found[kind] = max(found[kind], apart)
        if name.startswith("evaluate "):
            relative = apart / max(1.0, float(np.abs(theirs).max()))
            found["evaluate"] = max(found["evaluate"], relative)
    return found


def start_workers(
    arguments: list[str],
    *,
    workers: int,
    environment: dict | None = None,
    module: str = "benchmarks.strategy_worker",
):
    """Starts `python -m module arguments` on this machine as the workers of one cluster.

    Returns:
        list of `subprocess.Popen`, worker 0 first.
    """
    addresses = [f"localhost:{port}" for port in _free_ports(workers)]
    processes = []
    for index in range(workers):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **(environment or {}), "TF_CONFIG": json.dumps(task)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def wait_for(processes, *, timeout: float) -> str:
    """Output of worker 0, once all have ended well.

    Raises:
        RuntimeError: one failed or took too long; then all are stopped. With their output.
    """

    def output_of(process):
        try:
            return process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired:
            return "took too long"

    # All at once: a worker whose pipe is full stands still, and the others wait for it.
    with concurrent.futures.ThreadPoolExecutor(len(processes)) as readers:
        outputs = list(readers.map(output_of, processes))
    for process in processes:
        process.kill()
    if any(process.wait() != 0 for process in processes):
        raise RuntimeError("A worker failed:\n" + "\n---\n".join(out[-4000:] for out in outputs))
    return outputs[0]


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
