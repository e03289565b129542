"""A run's model loads wherever circle_tf is; what cannot be loaded is told in a sentence."""

import subprocess
import sys

import keras
import pytest

import circle_tf
from circle_tf import backbones, run_files
from tests import stacks

pytestmark = stacks.needs_keras_3  # As training from the command line.

_LOAD = """
import sys
from circle_tf import run_files
print(run_files.load_model(sys.argv[1]).output_shape)
"""


def _loaded_elsewhere(path):
    """What a process that has imported nothing says of the model."""
    done = subprocess.run([sys.executable, "-c", _LOAD, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _net():
    net = backbones.build("conv4", (8, 8, 1))
    return keras.Model(net.input, circle_tf.UnitEmbedding(3)(net.output))


def test_the_model_is_not_compiled(tmp_path):
    files = run_files.RunFiles(str(tmp_path))
    model = _net()
    model.compile("sgd", "mse")
    model.save(files.model)
    loaded = run_files.load_model(files.model)
    assert loaded.output_shape == (None, 3) and not loaded.compiled


# Starts a process that imports TensorFlow.
@pytest.mark.slow
def test_the_library_s_layers_load_in_a_fresh_process(tmp_path):
    _net().save(tmp_path / "model.keras")
    assert _loaded_elsewhere(tmp_path / "model.keras") == "(None, 3)\n"


# Reads the model in a process that has not imported keras-cv yet: 10 seconds.
@pytest.mark.slow
def test_layers_of_keras_cv_load_in_a_fresh_process(tmp_path):
    backbone = backbones.build("mobilenet_v3_small", (32, 32, 3))
    backbone.save(tmp_path / "model.keras")
    assert _loaded_elsewhere(tmp_path / "model.keras") == f"{backbone.output_shape}\n"


def test_unknown_layers_are_named(tmp_path):
    class Unknown(keras.layers.Layer):
        def call(self, images):
            return images

    pixels = keras.Input((8, 8, 1))
    keras.Model(pixels, Unknown()(pixels)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="model.keras cannot be loaded: .*Unknown"):
        run_files.load_model(str(tmp_path / "model.keras"))
