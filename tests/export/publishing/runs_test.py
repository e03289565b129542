"""A finished run is read; anything else is refused in words."""

import keras
import numpy as np
import pytest

from circle_tf import backbones
from export.cli import console
from export.publishing import runs
from tests import processes, saved_models


def test_reads_a_finished_run(tmp_path):
    model = saved_models.embedding_model()
    workdir = saved_models.finished_run(tmp_path / "run", model=model)
    run = runs.read(str(workdir))
    assert run.image_shape == saved_models.SHAPE
    assert run.record["step"] == 7 and run.config == {"steps": 7}
    loaded = runs.load_model(str(workdir))
    np.testing.assert_array_equal(loaded(saved_models.IMAGES), model(saved_models.IMAGES))


def test_a_run_may_keep_no_config_and_no_shape(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    run = runs.read(str(tmp_path))
    assert run.config == {} and run.image_shape is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has not finished.*python -m trainers.train"), ("{", "not JSON"), ("[]", "object")],
)
def test_unfinished_and_broken_runs(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(console.ExportError, match=message):
        runs.read(str(tmp_path))


def test_no_workdir(tmp_path):
    with pytest.raises(console.ExportError, match="There is no workdir"):
        runs.read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "There is no model.keras"), (b"no zip", "cannot be loaded")]
)
def test_missing_and_broken_models(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(console.ExportError, match=message):
        runs.load_model(str(tmp_path))


def test_a_model_of_unknown_layers_names_the_file(tmp_path):
    class Unknown(keras.layers.Layer):
        def call(self, images):
            return images

    pixels = keras.Input(saved_models.SHAPE)
    keras.Model(pixels, Unknown()(pixels)).save(tmp_path / "model.keras")
    with pytest.raises(console.ExportError, match="model.keras cannot be loaded: .*Unknown"):
        runs.load_model(str(tmp_path))


# Reads the model in a process that has not imported keras-cv yet: 10 seconds.
@pytest.mark.slow
def test_a_model_with_keras_cv_layers_loads_in_a_fresh_process(tmp_path):
    backbone = backbones.build("mobilenet_v3_small", (32, 32, 3))
    backbone.save(tmp_path / "model.keras")
    program = "import sys; from export.publishing.runs import load_model as load; "
    done = processes.run("-c", program + "print(load(sys.argv[1]).output_shape)", tmp_path)
    assert done.stdout == f"{backbone.output_shape}\n", done.stderr
