"""Four logical CPU devices for every test, so that strategies can be tried on any machine."""

import contextlib
import gc
import os

import hypothesis
import pytest

# What importing TensorFlow and all tests makes lives to the end: not worth a search for garbage.
gc.disable()
# Workers share the cores: one thread of TensorFlow's each, also in the processes that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Its notes would stand below the result. In the stack of Addons `import trainers` raises.
with contextlib.suppress(ImportError):
    import trainers  # noqa: F401
    from circle_tf.utils import quiet

    quiet.import_tensorflow(log_level=3)

import tensorflow as tf  # noqa: E402
from tensorflow.python.framework import config as tf_config  # noqa: E402

from circle_tf import compat  # noqa: E402
from tests import stacks  # noqa: E402

# A busy machine is no fault of the library's. In CI the same examples are tried every time.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
hypothesis.settings.load_profile("suite")

_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)


# They import what only Keras 3 has, or `export`, which refuses any other.
collect_ignore = []
if not compat.IS_KERAS_3:
    collect_ignore = [
        "circle_tf/fine_tuning",
        "circle_tf/training/cached_gradients_test.py",
        "circle_tf/training/all_rows_test.py",
        "circle_tf/training/model_distributed_test.py",
        "circle_tf/training/model_multiworker_test.py",
        "circle_tf/serving/signatures_test.py",
    ]


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
    """Skips examples that need the default stack, and puts first what takes longest."""
    examples = (item for item in items if isinstance(item, pytest.DoctestItem))
    for item in examples:
        if f"{item.dtest.name}.".startswith(tuple(f"{m}." for m in stacks.DEFAULT_STACK_MODULES)):
            item.add_marker(stacks.needs_keras_3)
    items.sort(key=lambda item: item.nodeid.partition("::")[0] not in PROCESSES)


def pytest_collection_finish():
    """Lets garbage be looked for in what tests make, and less often: TensorFlow makes much."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
    gc.enable()


# They train in processes, several at once, or serve and kill them.
PROCESSES = {
    "tests/chain_test.py",
    "tests/circle_tf/training/model_multiworker_test.py",
    "tests/trainers/head_runs_test.py",
    "tests/trainers/launch_test.py",
    "tests/trainers/restart_test.py",
    "tests/trainers/training/hard_classes_test.py",
    "tests/trainers/training/loop_test.py",
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives each worker whole files, so that what a file shares is made once.

    The files of `PROCESSES` go to one worker: at most one of them is at work.
    """
    from xdist.scheduler import LoadFileScheduling

    lost = {path for path in PROCESSES if not (config.rootpath / path).exists()}
    if lost:
        raise pytest.UsageError(f"tests/conftest.py lists files that are not there: {lost}")

    config.option.loadscopereorder = False  # The order of items, not the number of tests in files.

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "processes" if file in PROCESSES else file

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Gives each test the process as it is at the start, whatever a training before it has set.

    Commands are tested as a newcomer runs them: with TF_CPP_MIN_LOG_LEVEL set they would show more.
    With determinism Keras leaves XLA out, and TensorFlow refuses some operations.
    """
    os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
    if tf_config.is_op_determinism_enabled():
        tf_config.disable_op_determinism()
