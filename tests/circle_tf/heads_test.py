"""CircleHead equals CosineClassifier + ClassCircleLoss."""

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
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


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
