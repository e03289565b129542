import subprocess
import sys

import pytest

from circle_tf.backbones import by_name
from tests import processes, stacks

pytestmark = stacks.needs_keras_3

GREY, COLOUR = (32, 32, 1), (32, 32, 3)


def test_resnets_are_as_large_as_keras_cv_states():
    counts = {"resnet18_v2": 11183488, "resnet34_v2": 21299072}
    # keras-cv's presets are for colour.
    assert counts == {name: by_name.build(name, COLOUR).count_params() for name in counts}


# Slow: builds nets of hundreds of layers.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        # What keras-cv states with its presets of these names.
        ("resnet50_v2", 23564800),
        ("efficientnetv2_b0", 5919312),
        ("efficientnetv2_b1", 6931124),
        ("efficientnetv2_b3", 12930622),
        ("efficientnetv2_s", 20331360),
        # What keras.applications states; keras-cv's number (933,502) is not that of its net.
        ("mobilenet_v3_small", 939120),
        ("mobilenet_v3_large", 2996352),
    ],
)
def test_larger_nets_are_as_large_as_stated(name, count):
    assert by_name.build(name, COLOUR).count_params() == count


# Slow: a process that imports TensorFlow.
@pytest.mark.slow
def test_resnets_load_without_keras_cv(tmp_path):
    by_name.build("resnet18_v2", GREY).save(tmp_path / "model.keras")
    code = f"""
import sys, circle_tf, keras
keras.models.load_model({str(tmp_path / "model.keras")!r})
assert "keras_cv" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def test_missing_keras_cv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_cv", None)
    with pytest.raises(ImportError, match=r"circle-tf\[train\]"):
        by_name.build("resnet18_v2", GREY)


# Slow: a process that imports TensorFlow.
@pytest.mark.slow
def test_importing_backbones_imports_no_keras_cv():
    code = "import sys, circle_tf.backbones; assert 'keras_cv' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# Slow: a process that imports TensorFlow and keras-cv.
@pytest.mark.slow
def test_users_without_a_home_folder(tmp_path):
    code = (
        "import os, pwd\n"
        "pwd.getpwuid = {}.__getitem__  # Knows nobody.\n"
        "del os.environ['HOME']\n"
        "from circle_tf.backbones import keras_cv\n"
        "assert keras_cv.import_keras_cv().layers and 'HOME' not in os.environ\n"
    )
    result = processes.run("-c", code, HOME="", KERAS_HOME=str(tmp_path))
    assert result.returncode == 0, result.stderr
