"""The replacements against what TensorFlow Addons itself gave (golden.json says how it came)."""

import importlib
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import addons as tfa
from tests.addons_stack import make_golden

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden.json").read_text())
BATCHES = GOLDEN["batches"]
CLASSES = [name for name in tfa.losses.__all__ if name.endswith("Loss")]
LOSSES = make_golden.losses(tfa)

# Where Addons itself is wrong: no finite number, or two labels taken for one.
NO_POSITIVES = {"no positives", "one example", "two classes"}
WITHOUT_NEGATIVES = {"one class", "two of a class"}


def is_nan_in_addons(batch, loss):
    if loss.startswith("semihard"):
        return batch in NO_POSITIVES
    return loss.startswith("lifted") and batch in NO_POSITIVES | WITHOUT_NEGATIVES | {"far"}


CASES = [(batch, loss) for batch in BATCHES for loss in LOSSES]
WRONG = [case for case in CASES if is_nan_in_addons(*case)]
WRONG += [("far", "soft"), ("large ids", "npairs")]
APART = {*WRONG, *make_golden.TIES}


def run(batch, loss):
    return make_golden.value_and_gradient(
        LOSSES[loss], BATCHES[batch]["ids"], BATCHES[batch]["rows"]
    )


@pytest.mark.parametrize(("batch", "loss"), [case for case in CASES if case not in APART])
def test_value_and_gradient_are_those_of_addons(batch, loss):
    value, gradient = run(batch, loss)
    expected, expected_gradient = BATCHES[batch]["losses"][loss]
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    scale = max(1.0, np.abs(expected_gradient).max())
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("batch", "loss"), WRONG)
def test_finite_where_addons_is_not(batch, loss):
    value, gradient = run(batch, loss)
    theirs = np.array(BATCHES[batch]["losses"][loss][0])
    assert np.isfinite(theirs) == (loss == "npairs")
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if batch in NO_POSITIVES | WITHOUT_NEGATIVES:
        assert value == 0 and not gradient.any()


def test_lifted_far_apart_equals_a_plain_loop():
    batch = BATCHES["far"]
    rows, ids = np.array(batch["rows"]), np.array(batch["ids"])
    d = np.linalg.norm(rows[:, None] - rows[None, :], axis=2)
    same, found = ids[:, None] == ids, []
    for i, j in zip(*np.nonzero(same & ~np.eye(len(ids), dtype=bool)), strict=True):
        gaps = np.concatenate([1.0 - d[i][~same[i]], 1.0 - d[j][~same[j]]])
        found.append(max(0.0, d[i, j] + np.logaddexp.reduce(gaps)) ** 2 / 2)
    np.testing.assert_allclose(run("far", "lifted")[0], np.mean(found), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(BATCHES))
def test_distances_are_those_of_addons(name):
    found = make_golden.matrices(tfa, BATCHES[name]["rows"])
    for kind, expected in BATCHES[name]["matrices"].items():
        np.testing.assert_allclose(found[kind], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("first", [2048, 2**24, 2**40])
def test_ids_above_what_half_precision_holds_stay_apart(dtype, first):
    ids = np.array([0, 1, 2, 3]) + first
    similarities = tf.constant(np.eye(4) * 3, dtype)
    small, large = (
        tfa.losses.npairs_loss(ids - first, similarities),
        tfa.losses.npairs_loss(ids, similarities),
    )
    assert large.dtype == dtype and float(small) == float(large)


@pytest.mark.parametrize("loss", ["semihard L2", "hard angular", "soft", "lifted"])
def test_half_precision_is_computed_in_float32(loss):
    ids, rows = np.arange(8) // 2, np.random.default_rng(0).normal(size=(8, 4)).astype("float16")
    value = LOSSES[loss](tf.constant(ids), tf.constant(rows))
    expected = LOSSES[loss](tf.constant(ids), tf.constant(rows.astype("float32")))
    assert value.dtype == tf.float16
    np.testing.assert_allclose(value, expected.numpy().astype("float16"))


@pytest.mark.parametrize("loss", ["semihard L2", "hard squared-L2", "lifted"])
def test_float64_stays(loss):
    rows = tf.constant(np.random.default_rng(0).normal(size=(8, 4)))
    assert LOSSES[loss](tf.range(8) // 2, rows).dtype == tf.float64


def test_keras_call_keeps_ids_apart():
    rows = make_golden.batches()["random"][1]
    ids = np.array([0, 1, 2, 3, 4] * 2)
    loss = tfa.losses.TripletSemiHardLoss()
    assert (
        float(loss(ids, rows)) == float(loss(ids + 2**24, rows)) == float(loss(ids[:, None], rows))
    )


def test_multilabel_takes_sparse_labels():
    labels, similarities = [[1, 0, 1], [0, 1, 1]], tf.constant([[2.0, 1.0], [0.0, 1.0]])
    dense = tfa.losses.npairs_multilabel_loss(labels, similarities)
    sparse = tfa.losses.npairs_multilabel_loss(
        tf.sparse.from_dense(tf.constant(labels)), similarities
    )
    assert float(dense) == float(sparse)


@pytest.mark.parametrize("reduction", ["auto", "sum_over_batch_size", "sum", "none"])
def test_contrastive_reductions(reduction):
    loss = tfa.losses.ContrastiveLoss(reduction=reduction)
    found = loss([1, 0], [0.5, 0.25], sample_weight=[1.0, 2.0]).numpy()
    expected = {"none": [0.25, 1.125], "sum": 1.375}.get(reduction, 0.6875)
    np.testing.assert_allclose(found, expected)


def test_weights_scale_the_one_loss_of_a_batch():
    loss, rows = tfa.losses.TripletHardLoss(), tf.eye(4)
    plain, weighted = loss([0, 0, 1, 1], rows), loss([0, 0, 1, 1], rows, [1.0, 0.0, 1.0, 0.0])
    assert float(weighted) == 0.5 * float(plain) > 0


@pytest.mark.parametrize("name", CLASSES)
def test_losses_survive_serialisation(name):
    loss = getattr(tfa.losses, name)(name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()


@keras.saving.register_keras_serializable("tests")
def city_block(rows):
    """Returns the distance matrix of a user's own metric."""
    return tf.reduce_sum(tf.abs(rows[:, None] - rows[None, :]), axis=2)


def test_a_models_file_keeps_loss_and_metric(tmp_path):
    rows = tf.random.stateless_normal([8, 5], [1, 2])
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    loss = tfa.losses.TripletHardLoss(margin=0.3, soft=True, distance_metric=city_block)
    model.compile("sgd", loss=loss)
    before = model.evaluate(rows, np.arange(8) // 2, batch_size=8, verbose=0)
    history = model.fit(rows, np.arange(8) // 2, batch_size=8, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0] == pytest.approx(before, rel=1e-5)
    model.save(str(tmp_path / "model.keras"))
    again = keras.models.load_model(str(tmp_path / "model.keras"))
    assert again.loss.get_config() == loss.get_config()
    np.testing.assert_allclose(
        again.evaluate(rows, np.arange(8) // 2, batch_size=8, verbose=0),
        model.evaluate(rows, np.arange(8) // 2, batch_size=8, verbose=0),
        rtol=1e-6,
    )


@pytest.mark.parametrize("jit", [False, True])
def test_graph_and_xla_give_the_same(jit):
    ids, rows = (tf.constant(x) for x in make_golden.batches()["random"])
    rows = tf.cast(rows, tf.float32)
    for name, loss in LOSSES.items():
        found = tf.function(loss, jit_compile=jit)(tf.cast(ids, tf.int64), rows)
        np.testing.assert_allclose(
            found, loss(tf.cast(ids, tf.int64), rows), rtol=1e-5, err_msg=name
        )


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="L2, squared-L2, angular or a function; found 'cosine'"):
        tfa.losses.TripletHardLoss(distance_metric="cosine")([0, 0], tf.eye(2))
    with pytest.raises(ValueError, match="auto, sum_over_batch_size, sum, none; found 'mean'"):
        tfa.losses.ContrastiveLoss(reduction="mean")


def test_what_is_not_here_is_named():
    with pytest.raises(AttributeError, match="Use keras.optimizers.Lamb"):
        _ = tfa.optimizers.LAMB
    with pytest.raises(AttributeError, match=r"no 'layers'.*docs/migrating-from-addons.md"):
        _ = tfa.layers
    assert importlib.import_module("circle_tf.addons") is tfa
