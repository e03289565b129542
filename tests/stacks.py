"""Which stack the tests run on: the default one, or that of TensorFlow Addons with Keras 2."""

import pytest

from circle_tf import compat

needs_keras_3 = pytest.mark.skipif(
    not compat.IS_KERAS_3, reason="default stack only: Keras 2 does not have what this tests"
)

# Packages and modules whose examples run on the default stack only.
DEFAULT_STACK_MODULES = (
    "circle_tf.backbones",
    "circle_tf.distribute.compilation",
    "circle_tf.distribute.sharded_variable",
    "circle_tf.serving",
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
