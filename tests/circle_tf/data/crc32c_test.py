import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from circle_tf.data.crc32c import crc32c, masked_crc32c


def _bit_by_bit(message):
    register = 0xFFFFFFFF
    for byte in message:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "message, expected",  # RFC 3720, appendix B.4
    [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_values_of_the_standard(message, expected):
    assert crc32c([message])[0] == expected


@settings(deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=20))
def test_many_messages_of_any_length_equal_the_definition(messages):
    expected = [_bit_by_bit(message) for message in messages]
    np.testing.assert_array_equal(crc32c(messages), np.array(expected, np.uint32))


def test_masked_value_is_the_one_tensorflow_writes(tmp_path):
    path = str(tmp_path / "a.tfrecord")
    data = np.random.default_rng(0).bytes(100_003)
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(data)
    content = (tmp_path / "a.tfrecord").read_bytes()
    stored = np.frombuffer(content[8:12] + content[-4:], "<u4")
    np.testing.assert_array_equal(masked_crc32c([content[:8], data]), stored)
