"""What TensorFlow says of a bad file, wherever it is decoded, is told in one line."""

import pytest
import tensorflow as tf

from circle_tf.data import decoding
from circle_tf.utils import errors
from tests.pictures import picture

WAYS = {
    "at once": lambda content: decoding.decode(tf.constant(content)),
    "in a function": lambda content: tf.function(decoding.decode)(tf.constant(content)),
    "in a data set": lambda content: next(
        iter(tf.data.Dataset.from_tensors(content).map(decoding.decode))
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a text", "Unknown image file format. One of "),
        (b"", "Input is empty."),
        (picture("png")[:60], "Invalid PNG data, size 60"),
        (b"BM", "This BMP is cut off, or of a kind that is not read (compressed, of 16 bits a "),
    ],
)
def test_reasons_are_one_line_without_places_in_the_graph(way, content, message):
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        WAYS[way](content)
    reason = errors.reason(caught.value)
    assert reason.startswith(message)
    assert not any(mark in reason for mark in ("{{", "[[", "[Op:", "\n"))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 300), "x" * 300),
    ],
)
def test_errors_of_others(error, reason):
    assert errors.reason(error) == reason


def test_a_check_that_fails_says_what_it_was_given_to_say():
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        tf.debugging.Assert(tf.constant(False), ["The batch is empty."])
    assert errors.reason(caught.value) == "The batch is empty."
