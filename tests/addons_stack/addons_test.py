"""TensorFlow Addons in use beside circle_tf, on its own stack (`make test-addons`)."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests.addons_stack import make_golden

tfa = pytest.importorskip(
    "tensorflow_addons", reason="TensorFlow Addons has a stack of its own: make test-addons"
)
ADAM, SGD = tf.keras.optimizers.legacy.Adam, tf.keras.optimizers.legacy.SGD
OPTIMIZERS = {
    "LAMB": lambda: tfa.optimizers.LAMB(learning_rate=0.02),
    "LazyAdam": lambda: tfa.optimizers.LazyAdam(learning_rate=0.02),
    "RectifiedAdam": lambda: tfa.optimizers.RectifiedAdam(learning_rate=0.02),
    "Lookahead": lambda: tfa.optimizers.Lookahead(ADAM(0.02)),
    "MovingAverage": lambda: tfa.optimizers.MovingAverage(SGD(0.01), average_decay=0.9),
    "SWA": lambda: tfa.optimizers.SWA(SGD(0.01), start_averaging=2, average_period=3),
}
LOSSES = {
    "CircleLoss": lambda: circle_tf.CircleLoss(margin=0.3, gamma=32.0),
    "TripletSemiHardLoss": lambda: tfa.losses.TripletSemiHardLoss(margin=0.5),
    "TripletHardLoss": lambda: tfa.losses.TripletHardLoss(margin=0.5, distance_metric="angular"),
    "LiftedStructLoss": tfa.losses.LiftedStructLoss,
}


def rows_and_ids(*, first=2**31):
    """Four clouds of eight rows."""
    rng = np.random.default_rng(0)
    ids = np.arange(32) % 4
    rows = rng.normal(size=(4, 10))[ids] + 0.3 * rng.normal(size=(32, 10))
    return rows.astype(np.float32), ids + first


def compiled(optimizer, loss, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,))
    features = keras.layers.Dense(16, "relu")(inputs)
    model = keras.Model(inputs, circle_tf.UnitEmbedding(6)(features))
    model.compile(optimizer=optimizer, loss=loss, **options)
    return model


def losses_of(model, *, epochs=12, first=2**31):
    rows, ids = rows_and_ids(first=first)
    return model.fit(rows, ids, batch_size=32, epochs=epochs, verbose=0).history["loss"]


@pytest.mark.parametrize(
    ("name", "jit"), [*((name, False) for name in OPTIMIZERS), ("LAMB", True), ("LazyAdam", True)]
)
def test_optimizers_train_circle_loss(name, jit):
    loss = circle_tf.CircleLoss(margin=0.3, gamma=32.0)
    metrics = circle_tf.metrics.monitors(margin=0.3)
    model = compiled(OPTIMIZERS[name](), loss, jit_compile=jit, metrics=metrics)
    found = losses_of(model)
    assert found[-1] < 0.7 * found[0]


def saved_and_loaded(optimizer, loss, path):
    """A model two steps into training, and what loads from the file it is saved to."""
    model = compiled(OPTIMIZERS[optimizer](), LOSSES[loss]())
    losses_of(model, epochs=2)
    model.save(path)
    again = keras.models.load_model(path)
    rows, _ = rows_and_ids()
    np.testing.assert_allclose(
        again.predict(rows, verbose=0), model.predict(rows, verbose=0), atol=1e-6
    )
    assert type(again.optimizer) is type(model.optimizer)
    assert again.loss.get_config() == model.loss.get_config()
    return model, again


@pytest.mark.parametrize(
    ("optimizer", "loss"),
    [*((name, "CircleLoss") for name in OPTIMIZERS), *(("LAMB", name) for name in LOSSES)][:-1],
)
def test_models_survive_saving_and_go_on(optimizer, loss, tmp_path):
    model, again = saved_and_loaded(optimizer, loss, str(tmp_path / "model.h5"))
    np.testing.assert_allclose(losses_of(again), losses_of(model), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["model.keras", "folder"])
def test_other_formats_keep_all_but_the_state_of_old_optimizers(name, tmp_path):
    """Of a tf.keras.optimizers.legacy optimizer, Keras 2 writes the state to .h5 files only."""
    _, again = saved_and_loaded("LAMB", "CircleLoss", str(tmp_path / name))
    assert int(again.optimizer.iterations) == 0
    found = losses_of(again)
    assert found[-1] < 0.7 * found[0]


def test_weights_of_a_run_can_be_averaged():
    model = compiled(OPTIMIZERS["SWA"](), circle_tf.CircleLoss(margin=0.3, gamma=32.0))
    found = losses_of(model)
    rows, ids = rows_and_ids()
    before = model.get_weights()
    model.optimizer.assign_average_vars(model.trainable_variables)
    assert not np.array_equal(before[0], model.get_weights()[0])
    assert model.evaluate(rows, ids, batch_size=32, verbose=0) < found[0]


@pytest.mark.parametrize("labels", ["class", "pairwise"])
def test_circle_heads_train_with_lamb(labels):
    keras.utils.set_random_seed(0)
    rows, ids = rows_and_ids(first=0)
    inputs, targets = keras.Input((10,)), keras.Input((), dtype="int64")
    embeddings = circle_tf.UnitEmbedding(6)(inputs)
    if labels == "class":
        head = circle_tf.CircleHead(4, gamma=32.0, as_model_loss=True)
    else:
        head = circle_tf.PairwiseCircle(gamma=32.0, as_model_loss=True)
    model = keras.Model([inputs, targets], head((embeddings, targets)))
    model.compile(tfa.optimizers.LAMB(0.02))
    found = model.fit([rows, ids], epochs=12, batch_size=32, verbose=0).history["loss"]
    assert found[-1] < 0.7 * found[0]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        optimizer = tfa.optimizers.LAMB(0.02)
        if policy == "mixed_float16":
            optimizer = keras.mixed_precision.LossScaleOptimizer(optimizer)
        model = compiled(optimizer, circle_tf.CircleLoss(margin=0.3, gamma=32.0))
        found = losses_of(model, epochs=20)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert model.output.dtype == tf.float32
    assert found[-1] < 0.7 * found[0]


def test_golden_numbers_are_those_of_this_stack():
    """The file beside the tests of circle_tf.addons is what the real package gives."""
    golden = json.loads((make_golden.FOLDER / "golden.json").read_text())
    losses = make_golden.losses(tfa)
    for name, loss in {(n, loss) for n in golden["batches"] for loss in losses} - make_golden.TIES:
        batch = golden["batches"][name]
        value, _ = make_golden.value_and_gradient(losses[loss], batch["ids"], batch["rows"])
        expected = batch["losses"][loss][0]
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6, err_msg=name + loss)


@pytest.mark.parametrize(("name", "loss"), sorted(make_golden.TIES))
def test_ties_are_broken_as_by_addons(name, loss):
    batch = make_golden.batches()[name]
    theirs, ours = (
        make_golden.value_and_gradient(make_golden.losses(package)[loss], *batch)
        for package in (tfa, circle_tf.addons)
    )
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make", [lambda: circle_tf.EmbeddingModel(*[keras.Input((2,))] * 2), circle_tf.save_servable]
)
def test_what_needs_the_default_stack_says_so(make):
    arguments = [] if make is not circle_tf.save_servable else [None, "nowhere"]
    with pytest.raises(NotImplementedError, match=r"needs Keras 3 .*Keras 2\.15"):
        make(*arguments)


@pytest.mark.parametrize("command", ["trainers.train", "trainers.evaluate", "export.publish"])
def test_commands_say_so_too(command):
    done = subprocess.run(
        [sys.executable, "-m", command, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"{command.partition('.')[0]} needs Keras 3 (TensorFlow 2.16 to 2.21)" in done.stderr
