"""Syntax errors in TF Serving's words, and where they are."""

import pytest

from export.server import errors
from export.server.json import parsing


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"  ", "The document is empty"),
        (b'{"a": tru}', "Invalid value. at offset: 6"),
        (b"{a: 1}", "Missing a name for object member. at offset: 1"),
        (b'{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        (b'{"a": [1 2]}', "Missing a comma or ] after an array element. at offset: 9"),
        (b'{"a]": [{}, {"b": "]["}] 2}', "Missing a comma or } after an object member."),
        (b"{} {}", "The document root must not be followed by other values. at offset: 3"),
        (b'{"a', "Missing a closing quotation mark in string."),
        (b'{"\\x": 1}', "Invalid escape character in string."),
        (b'{"a": "\xff"}', "Invalid encoding in string."),
        (b'{"a": ' + b"[" * 50_000, "Nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "Number too big"),
    ],
)
def test_syntax_errors(body, message):
    with pytest.raises(errors.ServingError) as caught:
        parsing.parse(body)
    assert caught.value.message.startswith(f"JSON Parse error: {message}")


@pytest.mark.parametrize("body", [b"[]", b"1", b"null", b'"a"'])
def test_other_documents(body):
    with pytest.raises(errors.ServingError, match="JSON Value: .* Is not object"):
        parsing.parse(body)


def test_long_values_are_cut_in_messages():
    with pytest.raises(errors.ServingError) as caught:
        parsing.parse(b"[" + b"1," * 10_000 + b"1]")
    assert len(caught.value.message) < 600


def test_nan_and_infinity_are_numbers():
    found = parsing.parse(b'{"a": [NaN, Infinity, -Infinity], "b": 1}')
    assert found["a"][1:] == [float("inf"), -float("inf")] and found["b"] == 1
