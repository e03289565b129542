"""Four logical CPU devices for every test, so that strategies can be tried on any machine."""

import os

os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)

import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from circle_tf import compat  # noqa: E402
from tests import stacks  # noqa: E402

_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)


# They import what only Keras 3 has, or `export`, which refuses any other.
collect_ignore = []
if not compat.IS_KERAS_3:
    names = ("cached_gradients", "models_distributed", "signatures")
    collect_ignore = [f"circle_tf/{name}_test.py" for name in names]


def pytest_addoption(parser):
    """Where conformance tests find a TF Serving, if there is one; see tests/served_models.py."""
    parser.addoption("--target", help="HOST:PORT of its gRPC and of its REST, with a comma")
    parser.addoption("--target_models", help="the folder that tests.served_models wrote for it")


def pytest_configure(config):
    """Lets the old stack, which nobody mends any more, give its warnings."""
    if not compat.IS_KERAS_3:
        for source in stacks.OLD_STACK_WARNINGS:
            config.addinivalue_line("filterwarnings", f"ignore:{source}")


def pytest_collection_modifyitems(items):
    """Skips the examples of modules that need the default stack."""
    examples = (item for item in items if isinstance(item, pytest.DoctestItem))
    for item in examples:
        if set(item.dtest.name.split(".")[1:2]) & stacks.DEFAULT_STACK_MODULES:
            item.add_marker(stacks.needs_keras_3)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Lets commands be tested as a newcomer runs them: with this set they show TensorFlow's notes.

    What tests of one process import sets it for all that come after.
    """
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
