"""Numbers and strings as JSON."""

import json

import numpy as np
import pytest

from export.server import errors
from export.server.json import formatting


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decimals_read_back_as_the_same_floats(dtype):
    values = np.random.default_rng(0).normal(size=(40, 5)).astype(dtype)
    values *= 10.0 ** np.random.default_rng(1).integers(-30, 30, (40, 1))
    found = json.loads(formatting.columns({"x": values}))["outputs"]
    np.testing.assert_array_equal(np.array(found, dtype), values)
    assert all(isinstance(value, float) for row in found for value in row)


def test_decimals_are_short():
    values = np.float32([0.1, 0.2, 1, 1e-5, np.nan, np.inf, -np.inf])
    expected = '{"outputs": [0.1, 0.2, 1.0, 1e-05, NaN, Infinity, -Infinity]}'
    assert formatting.columns({"x": values}) == expected


def test_scalars_integers_and_bool():
    outputs = {"a": np.int64(-3), "b": np.array([[True], [False]]), "c": np.zeros((2, 0))}
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    text = formatting.columns(arrays)
    assert text == '{"outputs": {"a": -3, "b": [[true], [false]], "c": [[], []]}}'


def test_strings():
    names = np.array([b'a"b', "é".encode(), b"\xff"], object)
    found = json.loads(formatting.rows({"names": names, "names_bytes": names}))["predictions"]
    assert [row["names"] for row in found] == ['a"b', "é", "\ufffd"]
    assert found[2]["names_bytes"] == {"b64": "/w=="}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"x": np.float32(1)}, "Tensor name: x has no shape information"),
        ({"x": np.zeros((0, 2))}, "Tensor name: x has invalid batch size: 0"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "y has inconsistent batch size: 3 expecting: 2"),
        ({"x": np.zeros(2, np.complex64)}, "Failed to write JSON value for tensor type: complex64"),
    ],
)
def test_what_has_no_rows(outputs, message):
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    with pytest.raises(errors.ServingError, match=message):
        formatting.rows(arrays)
