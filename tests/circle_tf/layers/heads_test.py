"""CircleHead equals CosineClassifier + ClassCircleLoss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from tests import stacks


def rows_and_ids():
    rng = np.random.default_rng(0)
    return rng.normal(size=(12, 6)).astype(np.float32), rng.integers(0, 9, 12)


def two_heads(**options):
    rows, ids = rows_and_ids()
    head = circle_tf.CircleHead(9, 0.25, 256.0, **options)
    head((rows, ids))
    classifier = circle_tf.CosineClassifier(9)
    classifier(rows)
    classifier.set_weights(head.get_weights())
    return head, classifier


@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("jit", [False, True])
def test_same_losses_and_gradients_as_classifier_and_loss(policy, jit):
    rows, ids = rows_and_ids()
    head, classifier = two_heads(dtype=policy)
    loss = circle_tf.ClassCircleLoss(0.25, 256.0, reduction="none")

    @tf.function(jit_compile=jit)
    def gradients(losses_of, layer):
        x = tf.constant(rows)
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = losses_of(x)
        return values, *tape.gradient(values, [x, *stacks.tensors([layer.class_weights])])

    found = gradients(lambda x: head((x, tf.constant(ids))), head)
    expected = gradients(lambda x: loss(ids, classifier(x)), classifier)
    assert found[0].dtype == tf.float32
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("max_bytes", [2**20, 64 * 48 * 4])
def test_bfloat16_products_are_those_of_float32_rounded(jit, max_bytes):
    rng = np.random.default_rng(0)
    start, ids = rng.normal(size=(300, 32)).astype(np.float32), rng.integers(0, 300, 48)
    rows = start[ids] + 0.7 * rng.normal(size=(48, 32)).astype(np.float32)

    def gradients(product_dtype):
        head = circle_tf.CircleHead(300, max_bytes=max_bytes, product_dtype=product_dtype)
        head.build((rows.shape, ids.shape))
        head.class_weights.assign(start)

        @tf.function(jit_compile=jit)
        def compute(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                values = head((x, tf.constant(ids)))
            return values, *tape.gradient(values, [x, *stacks.tensors([head.class_weights])])

        assert head.class_weights.numpy().dtype == np.float32
        return [value.numpy() for value in compute(tf.constant(rows))]

    exact, rounded = gradients(None), gradients("bfloat16")
    for a, b in zip(exact, rounded, strict=True):
        assert b.dtype == np.float32
        apart = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert apart < 0.05
        # XLA of TensorFlow 2.16 leaves the rounding out, which costs no digit.
        assert apart > 1e-4 or (jit and stacks.TENSORFLOW < (2, 19))
    for a, b in zip(exact[1:], rounded[1:], strict=True):
        assert (a * b).sum() > 0.999 * np.linalg.norm(a) * np.linalg.norm(b)


def test_bfloat16_products_leave_float64_alone():
    rows, ids = rows_and_ids()
    heads = [circle_tf.CircleHead(9, dtype="float64", product_dtype=d) for d in (None, "bfloat16")]
    for head in heads:
        head.build((rows.shape, ids.shape))
    heads[1].set_weights(heads[0].get_weights())
    values = [head((rows.astype(np.float64), ids)) for head in heads]
    assert values[0].dtype == tf.float64
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("dtype", ["float16", "float32", True])
def test_refuses_other_dtypes_of_products(dtype):
    with pytest.raises(ValueError, match='product_dtype must be None or "bfloat16"; found'):
        circle_tf.CircleHead(9, product_dtype=dtype)


def test_adds_the_mean_to_the_models_losses():
    rows, ids = rows_and_ids()
    head, classifier = two_heads(as_model_loss=True)
    head((rows, ids))
    expected = circle_tf.ClassCircleLoss(0.25, 256.0)(ids, classifier(rows))
    np.testing.assert_allclose(head.losses, [expected], rtol=1e-6)


def test_refuses_ids_out_of_range():
    rows, ids = rows_and_ids()
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"0\.\.8 for 9 classes"):
        circle_tf.CircleHead(9)((rows, ids + 1))


@pytest.mark.parametrize("classes", [1, -3, 2.5])
def test_refuses_bad_class_counts(classes):
    with pytest.raises(ValueError, match="num_classes must be"):
        circle_tf.CircleHead(classes)


def test_ids_out_of_range_are_nan_under_xla():
    rows, ids = rows_and_ids()
    head = circle_tf.CircleHead(9)
    ids = np.r_[9, -1, ids[2:]]
    values = tf.function(lambda: head((rows, tf.constant(ids))), jit_compile=True)()
    assert np.isnan(values[:2]).all() and np.isfinite(values[2:]).all()


@stacks.needs_keras_3
@pytest.mark.parametrize("max_bytes", [2**20, 64 * 12 * 4])
def test_trains_in_fit_like_the_classifier_and_loss(max_bytes):
    rows, ids = rows_and_ids()
    weights = []
    for with_head in (True, False):
        pixels, labels = keras.Input((6,)), keras.Input((), dtype="int64")
        unit = circle_tf.UnitEmbedding(5, kernel_initializer=keras.initializers.Identity())(pixels)
        if with_head:
            head = circle_tf.CircleHead(150, gamma=16.0, as_model_loss=True, max_bytes=max_bytes)
            model = circle_tf.EmbeddingModel([pixels, labels], head((unit, labels)))
            model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        else:
            head = circle_tf.CosineClassifier(150)
            model = circle_tf.EmbeddingModel(pixels, head(unit))
            loss = circle_tf.ClassCircleLoss(gamma=16.0)
            model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
        start = np.random.default_rng(1).normal(size=(150, 5)).astype(np.float32)
        head.class_weights.assign(start)
        data = {"x": [rows, ids]} if with_head else {"x": rows, "y": ids}
        model.fit(**data, epochs=3, batch_size=6, shuffle=False, verbose=0)
        weights.append(head.class_weights.numpy())
        assert np.abs(weights[-1] - start).max() > 1e-3
    np.testing.assert_allclose(*weights, atol=1e-5)
