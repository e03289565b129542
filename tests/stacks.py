"""Which stack the tests run on: the default one, or that of TensorFlow Addons with Keras 2."""

import keras
import pytest
import tensorflow as tf

from circle_tf import compat

needs_keras_3 = pytest.mark.skipif(
    not compat.IS_KERAS_3, reason="default stack only: Keras 2 does not have what this tests"
)

TENSORFLOW = tuple(int(number) for number in tf.__version__.split(".")[:2])
needs_own_steps = pytest.mark.skipif(
    compat.KERAS < (3, 10),
    reason="Keras before 3.10: refused over replicas",
)
needs_lamb = pytest.mark.skipif(
    not hasattr(keras.optimizers, "Lamb"), reason="this Keras has no Lamb"
)
needs_keras_circle = pytest.mark.skipif(
    not hasattr(keras.losses, "Circle"), reason="this Keras has no Circle"
)

# Packages and modules whose examples run on the default stack only.
DEFAULT_STACK_MODULES = (
    "circle_tf.backbones",
    "circle_tf.distribute.compilation",
    "circle_tf.distribute.sharded_variable",
    "circle_tf.serving",
    "circle_tf.fine_tuning",
    "circle_tf.optimizers",
)

# What TensorFlow 2.15 and Addons warn of when they are imported and used.
OLD_STACK_WARNINGS = (
    ":DeprecationWarning",
    "(?s).*TensorFlow Addons .TFA. has ended:UserWarning",
    "(?s).*You are saving your model as an HDF5 file:UserWarning",
)


def tensors(variables):
    """The variables as tensors, which a gradient tape takes on both stacks."""
    return [variable.value if compat.IS_KERAS_3 else variable for variable in variables]
