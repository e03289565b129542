"""Class weights updated block by block: the numbers of an update from their whole gradient."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.layers import fused_update
from circle_tf.losses.streaming import class_sweep
from circle_tf.optimizers import row_updates
from tests import stacks, strategies
from tests.combinations import diagonal, quick

pytestmark = stacks.needs_keras_3

CLASSES, DIM, BATCH = 150, 5, 12


def inputs(dtype=np.float64):
    random = np.random.default_rng(0)
    weights = random.normal(size=(CLASSES, DIM)).astype(dtype)
    weights[3] = 0
    ids = np.r_[3, 149, random.integers(0, CLASSES, BATCH - 2)]
    rows = (weights[ids] + 0.3 * random.normal(size=(BATCH, DIM))).astype(dtype)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), weights, ids


@pytest.mark.parametrize(
    ("block", "budget", "gamma", "detach_weights"),
    diagonal([65, 4096, 64], [1, 2, 100], [8.0, 256.0], [True, False]),
)
def test_losses_and_gradients_are_those_of_class_losses(
    block, budget, gamma, detach_weights, monkeypatch
):
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", block * BATCH * 8)
    unit, weights, ids = inputs()
    variable, upstream = tf.Variable(weights), tf.constant(np.linspace(0.5, 2.0, BATCH))
    options = {"margin": 0.25, "gamma": gamma, "detach_weights": detach_weights}
    options["max_bytes"] = budget * block * BATCH * 8
    gathered, handed = tf.Variable(np.full_like(weights, np.nan)), []

    @tf.function
    def ours(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            losses = fused_update.deferring_class_losses(
                x, variable, tf.constant(ids), handed.append, **options
            )
        of_unit, nothing = tape.gradient(losses, [x, variable], upstream)
        handed.pop()(lambda rows, found: gathered.scatter_update(tf.IndexedSlices(found, rows)))
        return losses, of_unit, tf.shape(nothing.values)[0]

    x, w = tf.constant(unit), tf.constant(weights)
    with tf.GradientTape() as tape:
        tape.watch([x, w])
        losses = class_sweep.class_losses(x, w, tf.constant(ids), **options)
    of_unit, of_weights = tape.gradient(losses, [x, w], upstream)
    found = ours(x)
    np.testing.assert_allclose(found[0], losses, rtol=1e-12)
    np.testing.assert_allclose(found[1], of_unit, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gathered, of_weights, rtol=1e-9, atol=1e-12)
    assert int(found[2]) == 0 and np.abs(of_weights).max() > 1e-2


def model_of(optimizer, *, fused, eager=False, jit=False, classes=CLASSES, **options):
    features, labels = keras.Input((6,)), keras.Input((), dtype="int64")
    kernel = keras.initializers.Orthogonal(seed=0)
    unit = circle_tf.UnitEmbedding(DIM, kernel_initializer=kernel)(features)
    head = circle_tf.CircleHead(
        classes, gamma=16.0, as_model_loss=True, fused_update=fused, **options
    )
    model = circle_tf.EmbeddingModel([features, labels], head((unit, labels)))
    head.class_weights.assign(np.random.default_rng(1).normal(size=(classes, DIM)))
    model.compile(optimizer, run_eagerly=eager, jit_compile=jit)
    return model, head


def trained(optimizer, *, steps_per_execution=1, **options):
    model, head = model_of(optimizer, **options)
    model.steps_per_execution = steps_per_execution
    random = np.random.default_rng(2)
    rows = random.normal(size=(24, 6)).astype(np.float32)
    ids = random.integers(0, CLASSES, 24)
    history = model.fit([rows, ids], epochs=3, batch_size=BATCH, shuffle=False, verbose=0)
    arrays = [*head.get_weights(), *(v.numpy() for v in model.optimizer.variables)]
    return [np.array(history.history["loss"]), *arrays, *model.get_weights()]


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 6)),
    "averages": lambda: keras.optimizers.SGD(0.01, use_ema=True, ema_momentum=0.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_trains_as_from_the_whole_gradient(name, monkeypatch):
    block = 65 * BATCH * 4
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", block)
    plain, fused = (  # Of three blocks the cosines of one are held.
        trained(OPTIMIZERS[name](), fused=fused, max_bytes=2 * block) for fused in (False, True)
    )
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_several_steps_at_a_time_under_a_strategy_of_one_device():
    make = OPTIMIZERS["Adam"]
    plain = trained(make(), fused=False)
    with tf.distribute.OneDeviceStrategy("CPU:0").scope():
        fused = trained(make(), fused=True, steps_per_execution=2)
    for a, b in zip(plain[1:], fused[1:], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@stacks.needs_own_steps
@pytest.mark.parametrize("name", quick(OPTIMIZERS, among=["momentum", "AdamW"]))
def test_each_replica_updates_its_own_classes(name, monkeypatch):
    # 151 classes are 76 on each replica, one of them no class: in two blocks, of as many rows as
    # are supposed where the size of the global batch is not known yet.
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", 65 * 1024 * 4)
    plain = trained(OPTIMIZERS[name](), fused=False, classes=151)
    with strategies.mirrored().scope():
        fused = trained(OPTIMIZERS[name](), fused=True, classes=151, shards="replicas")
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@stacks.needs_own_steps
@pytest.mark.parametrize("fused", [True, False])
def test_no_replica_makes_a_tensor_as_large_as_its_classes(fused, monkeypatch):
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", 64 * 1024 * 4)
    monkeypatch.setattr(row_updates, "_BLOCK_BYTES", 64 * DIM * 4)
    strategy = strategies.mirrored()
    with strategy.scope():
        model, _ = model_of(keras.optimizers.Adam(0.01), fused=fused, shards="replicas")
        model.optimizer.build(model.trainable_variables)
    data = ((tf.zeros([BATCH, 6]), tf.range(BATCH, dtype=tf.int64)),)
    step = tf.function(lambda: strategy.run(model.train_step, args=(data,)))
    assert bool(matrices_in(step.get_concrete_function(), (CLASSES // 2, DIM))) != fused


@pytest.mark.parametrize("options", [{"eager": True}, {"jit": True}], ids=["eager", "xla"])
def test_elsewhere_the_update_is_from_the_whole_gradient(options):
    make = OPTIMIZERS["Adam"]
    plain, fused = (trained(make(), fused=fused, **options) for fused in (False, True))
    for a, b in zip(plain, fused, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


def test_bfloat16_products():
    make = OPTIMIZERS["momentum"]
    plain, fused = (trained(make(), fused=f, product_dtype="bfloat16") for f in (False, True))
    exact = trained(make(), fused=True)
    np.testing.assert_allclose(fused[1], plain[1], atol=3e-3)
    assert 1e-6 < np.abs(fused[1] - exact[1]).max() < 1e-2


def matrices_in(function, shape):
    """Operations of a traced function, and of all that it calls, that make a tensor of a shape."""
    library = function.graph.as_graph_def(add_shapes=True)
    nodes = [*library.node, *(n for f in library.library.function for n in f.node_def)]
    wanted = list(shape)
    return [
        node.name
        for node in nodes
        for found in node.attr["_output_shapes"].list.shape
        if [d.size for d in found.dim] == wanted
    ]


@pytest.mark.parametrize(("fused", "averages"), [(True, False), (True, True), (False, False)])
def test_no_tensor_as_large_as_the_class_weights_is_made(fused, averages, monkeypatch):
    monkeypatch.setattr(class_sweep, "_BLOCK_BYTES", 64 * BATCH * 4)
    monkeypatch.setattr(row_updates, "_BLOCK_BYTES", 64 * DIM * 4)
    optimizer = keras.optimizers.Adam(0.01, use_ema=averages)
    model, head = model_of(optimizer, fused=fused, max_bytes=64 * BATCH * 4)
    model.optimizer.build(model.trainable_variables)
    data = ((tf.zeros([BATCH, 6]), tf.range(BATCH, dtype=tf.int64)),)
    step = tf.function(model.train_step).get_concrete_function(data)
    assert bool(matrices_in(step, (CLASSES, DIM))) != fused
    assert head.class_weights.shape == (CLASSES, DIM)


def test_evaluation_and_saving_are_as_ever(tmp_path):
    model, head = model_of(keras.optimizers.Adam(0.01), fused=True)
    rows, ids = np.ones([4, 6], np.float32), np.arange(4)
    model.fit([rows, ids], verbose=0)
    before = model.evaluate([rows, ids], verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.evaluate([rows, ids], verbose=0), before, rtol=1e-6)
    assert again.get_layer(head.name).fused_update
    model.fit([rows, ids], epochs=2, verbose=0)
    again.fit([rows, ids], epochs=2, verbose=0)
    for a, b in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(global_clipnorm=1.0),
        lambda: keras.optimizers.SGD(clipvalue=1.0),
        pytest.param(lambda: keras.optimizers.Lamb(), marks=stacks.needs_lamb),
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
    ],
)
def test_refuses_optimizers_that_look_at_whole_gradients(optimizer):
    with pytest.raises(ValueError, match=r"A fused update is not for .*whole gradients"):
        model_of(optimizer(), fused=True)


def test_refuses_samples():
    with pytest.raises(ValueError, match="leave out sample_rate, or fused_update"):
        circle_tf.CircleHead(9, fused_update=True, sample_rate=0.5)


def test_refuses_what_is_no_bool():
    with pytest.raises(ValueError, match="fused_update must be True or False; found 1"):
        circle_tf.CircleHead(9, fused_update=1)


@stacks.needs_own_steps
def test_refuses_gradients_that_are_accumulated():
    model, _ = model_of(keras.optimizers.SGD(), fused=True)
    with pytest.raises(
        NotImplementedError, match="fused_update=True, which is not for gradient_acc"
    ):
        model.compile(keras.optimizers.SGD(), gradient_accumulation=2)


def test_refuses_a_head_that_is_called_twice_in_a_step():
    _, head = model_of(keras.optimizers.SGD(), fused=True)
    rows, ids = tf.ones([4, DIM]), tf.range(4)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            losses = head((rows, ids), training=True) + head((2 * rows, ids), training=True)
        return tape.gradient(losses, head.class_weights.value)

    with pytest.raises(NotImplementedError, match="two deferred gradients in one step"):
        step()


def test_refuses_a_gradient_that_was_not_deferred_in_the_step():
    model, head = model_of(keras.optimizers.SGD(), fused=True)
    gradient = tf.IndexedSlices(tf.zeros([0, DIM]), tf.zeros([0], tf.int32))
    with pytest.raises(RuntimeError, match="apply gradients in the tf.function that computes"):
        model.optimizer.apply([gradient], [head.class_weights])


@pytest.mark.parametrize("fused", [True, False])
def test_refuses_the_optimizer_that_was_given_in_place_of_the_one_returned(fused):
    head = circle_tf.CircleHead(9, fused_update=fused, sample_rate=1.0 if fused else 0.5)
    head.build([(4, DIM), (4,)])
    given = keras.optimizers.Adam()
    returned = head.prepare_optimizer(given)

    @tf.function
    def step(optimizer):
        with tf.GradientTape() as tape:
            losses = head((tf.ones([4, DIM]), tf.range(4)), training=True)
        optimizer.apply([tape.gradient(losses, head.class_weights.value)], [head.class_weights])

    with pytest.raises(RuntimeError, match="Build and apply the one that was returned"):
        step(given)
        step(returned)
    assert type(given) is keras.optimizers.Adam


def test_refuses_several_replicas_that_do_not_share_the_classes():
    _, head = model_of(keras.optimizers.SGD(), fused=True)
    call = lambda: head((tf.ones([4, DIM]), tf.range(4)), training=True)  # noqa: E731
    with pytest.raises(NotImplementedError, match='wants shards="replicas" too'):
        strategies.mirrored().run(tf.function(call))
