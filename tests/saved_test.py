"""A model that an earlier version saved loads, computes the same, and goes on training.

`tests/saved/make_saved.py` tells how it was made. Names and places of modules may change; what
people have on their disks does not.
"""

import json

import keras
import numpy as np
import pytest

import circle_tf
from circle_tf import compat
from tests.saved import make_saved

pytestmark = pytest.mark.skipif(
    compat.KERAS < (3, 15), reason="Keras does not load what a newer one saved, this file 3.15"
)


@pytest.fixture(scope="module")
def record():
    return json.loads((make_saved.FOLDER / "everything.json").read_text())


@pytest.fixture
def model():
    return keras.models.load_model(make_saved.FOLDER / "everything.keras")


def test_a_saved_model_computes_what_it_did(model, record):
    assert type(model) is circle_tf.EmbeddingModel
    found = model.predict(make_saved.inputs(), batch_size=32, verbose=0)
    assert found.keys() == record["outputs"].keys()
    for name, expected in record["outputs"].items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    assert model.get_layer("memory").memory_ids.numpy().tolist() == record["memory_ids"]


def test_a_saved_model_is_judged_as_it_was_and_goes_on_training(model, record):
    given = make_saved.inputs()
    targets = dict.fromkeys(model.output_names, given[1])
    options = {"batch_size": 32, "verbose": 0}
    assert model.evaluate(given, targets, return_dict=True, **options) == pytest.approx(
        record["evaluate"], rel=1e-4
    )
    losses = model.fit(given, targets, epochs=4, shuffle=False, **options).history["unit_loss"]
    assert np.isfinite(losses).all() and len(set(losses)) == 4
    assert int(model.optimizer.iterations) == 2 + 4  # Its moments are those of before.
