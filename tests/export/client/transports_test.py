"""What REST sends: the JSON of any array, made without leaving work to the garbage collector."""

import gc
import json
import types

import numpy as np
import pytest
import requests

from export.client import transports


@pytest.fixture
def sent(monkeypatch):
    """The bodies that were sent; each is answered by one number."""
    bodies = []

    def request(self, method, url, *, data, headers, timeout):
        assert headers == {"Content-Type": "application/json"}
        bodies.append(data)
        return types.SimpleNamespace(ok=True, json=lambda: {"outputs": {"a": [1]}})

    monkeypatch.setattr(requests.Session, "request", request)
    return bodies


def predict(**inputs):
    served = transports.Rest("http://nowhere:1", model="m", version=None, label=None)
    return served.predict(inputs, "serving_default", timeout=1)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (3,), (2, 3), (2, 1, 3, 2), (4, 1)])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, np.str_])
def test_the_body_has_the_numbers_in_nested_lists(sent, shape, dtype):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) / 3).astype(dtype)
    predict(**{'a "name", quoted': array})
    body = json.loads(sent[0])
    assert body["signature_name"] == "serving_default"
    (found,) = body["inputs"].values()
    assert found == array.tolist() and list(body["inputs"]) == ['a "name", quoted']


def test_images_do_not_bring_on_collections_of_garbage(sent):
    """65,536 lists of one number would: 90, and one of all objects, each time or two."""
    collected = []

    def note(phase, info):
        collected.append(info["generation"]) if phase == "start" else None

    gc.callbacks.append(note)
    try:
        predict(images=np.zeros([64, 32, 32, 1], np.float32))
    finally:
        gc.callbacks.remove(note)
    assert len(sent) == 1 and len(collected) < 10
