"""The verifier passes a right SavedModel and refuses each wrong one, saying why."""

import os
import signal
import sys

import keras
import pytest
import tensorflow as tf

from circle_tf import layers
from circle_tf.serving import servable
from export.cli import console
from export.verification import checks, session_checks
from tests import saved_models
from tests.saved_models import unit_pixels


# Each test marked slow starts a process that imports TensorFlow: 5 to 10 seconds.
@pytest.mark.slow
def test_a_right_model_passes_in_a_process_of_its_own(tmp_path):
    model = saved_models.embedding_model()
    path = servable.save_servable(model, tmp_path / "1")
    verified = checks.verify_servable(path, model=model)
    assert verified.failures() == [] and verified.parity <= 1e-6
    names = [check.name for check in verified.checks]
    assert names[:5] == ["signature", "operations", "size", "opens", "embeddings"]
    assert {"guard: empty batch", "guard: rank 3", "guard: wrong channels"} <= set(names)
    text = "\n".join(verified.summary())
    assert "images float32 [?, 8, 8, 1] -> embeddings float32 [?, 6]" in text
    assert "over batches 1, 3, 17" in text


@pytest.mark.slow
def test_a_model_that_kills_its_process_is_refused(tmp_path):
    model = saved_models.embedding_model()
    path = saved_models.save_embedder(
        tmp_path / "1", lambda images: model(images, training=False), guard_shape=False
    )
    # oneDNN aborts on a convolution of rank 3, or some later version answers: both are refused.
    with pytest.raises(checks.VerificationError, match="must not be served.*guard: rank"):
        checks.verify_servable(path, model=model)


def _refuses(path, message, *, model=None):
    with pytest.raises(checks.VerificationError, match=message):
        checks.verify_servable(str(path), model=model)


def test_weights_stored_twice(tmp_path):
    pixels = keras.Input(saved_models.SHAPE)
    flat = keras.layers.Flatten()(pixels)
    model = keras.Model(pixels, layers.UnitEmbedding(2048)(flat))
    module = tf.Module()
    module.copy = [tf.Variable(weight) for weight in model.get_weights()]
    path = servable.save_servable(model, tmp_path / "1")
    module.served = tf.saved_model.load(path)
    serve = module.served.signatures["serving_default"]
    tf.saved_model.save(module, str(tmp_path / "2"), signatures={"serving_default": serve})
    _refuses(tmp_path / "2", r"size: .*\(2\.\d+ x\).*twice", model=model)


def test_weights_as_constants_beside_variables(tmp_path):
    pixels = keras.Input(saved_models.SHAPE)
    model = keras.Model(
        pixels, layers.UnitEmbedding(2048)(keras.layers.Flatten()(pixels)), name="wide"
    )
    frozen = tf.constant(model.get_weights()[0] + 1.0)

    def embed(images):
        rows = tf.matmul(tf.reshape(images, [-1, 64]), frozen)
        return tf.math.l2_normalize(rows + model(images), axis=1)

    _refuses(saved_models.save_embedder(tmp_path / "1", embed), r"size: .*twice", model=model)


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (lambda x: unit_pixels(x + tf.random.normal(tf.shape(x))), "random numbers"),
        (lambda x: unit_pixels(tf.numpy_function(lambda y: y, [x], x.dtype)), "Python code"),
        (lambda x: tf.cast(unit_pixels(x), tf.float64), r"signature: .*float64 \[\?, 64\]"),
    ],
    ids=["random", "python", "dtype"],
)
def test_graphs_that_cannot_be_served(tmp_path, embed, message):
    _refuses(saved_models.save_embedder(tmp_path / "1", embed), message)


def _save_signature(path, name, spec, serve):
    function = tf.function(serve, input_signature=[spec])
    tf.saved_model.save(tf.Module(), str(path), signatures={name: function})
    return str(path)


@pytest.mark.parametrize(
    ("name", "shape", "output", "message"),
    [
        ("embed", [None, 8, 8, 1], "embeddings", r"no serving_default; found .*embed"),
        ("serving_default", [None, 8, 8, 1], "output_0", "wanted images -> embeddings; found"),
        ("serving_default", [4, 8, 8, 1], "embeddings", r".*found images float32 \[4, 8, 8, 1\]"),
        (
            "serving_default",
            [None, None, 8, 1],
            "embeddings",
            r".*found images float32 \[\?, \?, 8, 1\]",
        ),
    ],
)
def test_other_signatures(tmp_path, name, shape, output, message):
    spec = tf.TensorSpec(shape, tf.float32, name="images")
    path = _save_signature(tmp_path / "1", name, spec, lambda images: {output: unit_pixels(images)})
    _refuses(path, f"signature: {message}")


def test_no_saved_model(tmp_path):
    with pytest.raises(console.ExportError, match=r"no saved_model.pb.*models/glyphs/1"):
        checks.verify_servable(str(tmp_path))


def _child(monkeypatch, tmp_path, program):
    """Verifies with another program in place of the session's."""
    script = tmp_path / "python"
    script.write_text(f"#!{sys.executable}\nimport os, sys, time\n{program}\n")
    os.chmod(script, 0o755)
    monkeypatch.setattr(session_checks.sys, "executable", str(script))
    return saved_models.save_embedder(tmp_path / "1", unit_pixels)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("sys.exit('ImportError: no tensorflow')", "session: .*status 1 .ImportError: no tensor"),
        (f"os.kill(os.getpid(), {signal.SIGSEGV:d})", "by SIGSEGV; TF Serving would die"),
        ("time.sleep(60)", "no answer within 2 s"),
    ],
    ids=["cannot start", "dies", "hangs"],
)
def test_a_process_that_does_not_finish(tmp_path, monkeypatch, program, message):
    path = _child(monkeypatch, tmp_path, program)
    with pytest.raises(checks.VerificationError, match=message):
        checks.verify_servable(path, timeout=2)
