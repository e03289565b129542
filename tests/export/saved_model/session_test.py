"""The C++ session answers as TF Serving does, errors included."""

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.serving import servable
from export.saved_model import session
from tests import saved_models


@pytest.fixture(scope="module")
def model():
    return saved_models.embedding_model()


@pytest.fixture(scope="module")
def opened(model, tmp_path_factory):
    path = servable.save_servable(model, tmp_path_factory.mktemp("base") / "1")
    with session.SavedModelSession(path) as opened:
        yield opened


@pytest.mark.parametrize("batch_size", [1, 3, 17])
def test_equals_the_python_model(opened, model, batch_size):
    images = saved_models.IMAGES[:batch_size]
    found = opened.run({"images": images})
    assert list(found) == ["embeddings"] and found["embeddings"].dtype == np.float32
    expected = model(images, training=False)
    np.testing.assert_allclose(found["embeddings"], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (saved_models.IMAGES[:0], "batch of images is empty: send at least one image of 8 x 8"),
        (saved_models.IMAGES[0], "is not compatible with expected shape"),
        (saved_models.IMAGES[None], "is not compatible with expected shape"),
        (saved_models.IMAGES[:, :7], "is not compatible with expected shape"),
        (saved_models.IMAGES[:, :, :7], "is not compatible with expected shape"),
        (np.repeat(saved_models.IMAGES, 3, axis=3), "is not compatible with expected shape"),
        (saved_models.IMAGES.astype(np.float64), "Type mismatch: actual double vs. expect float"),
        (saved_models.IMAGES.astype(np.uint8), "Type mismatch: actual uint8 vs. expect float"),
    ],
    ids=["empty", "rank 3", "rank 5", "height", "width", "channels", "float64", "uint8"],
)
def test_bad_input_gets_the_servers_own_answer(opened, images, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        opened.run({"images": images})


def test_unknown_signature_and_missing_input(opened):
    with pytest.raises(KeyError, match="search"):
        opened.run({"images": saved_models.IMAGES}, signature="search")
    with pytest.raises(KeyError, match="images"):
        opened.run({"pixels": saved_models.IMAGES})


def test_finds_out_what_loads_in_python_alone(tmp_path, model):
    # Why save_servable exists: the obvious way to save a Keras model cannot be served.
    tf.saved_model.save(model, str(tmp_path / "1"))
    assert tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    with session.SavedModelSession(str(tmp_path / "1")) as opened:
        (name,) = opened.signatures["serving_default"].inputs
        with pytest.raises(tf.errors.FailedPreconditionError, match="Could not find variable"):
            opened.run({name: saved_models.IMAGES})


def test_no_saved_model_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="SavedModel"):
        session.SavedModelSession(str(tmp_path))
