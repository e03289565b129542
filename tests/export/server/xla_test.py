"""The switch for XLA, which is not public: it works, and only as long as it is asked for."""

import pytest
import tensorflow as tf

from export.server import xla


def _double():
    """A new function every time, so that it has to be compiled."""
    return tf.function(lambda values: values * 2, jit_compile=True)(tf.ones(2)).numpy().tolist()


def test_xla_is_off_until_the_last_is_done():
    assert _double() == [2.0, 2.0]
    with xla.disabled() as found:
        assert found
        with xla.disabled(), pytest.raises(tf.errors.InternalError, match="compilation disabled"):
            _double()
        with pytest.raises(tf.errors.InternalError, match="XLA compilation disabled"):
            _double()
    assert _double() == [2.0, 2.0]


def test_a_tensorflow_without_the_switch(monkeypatch):
    monkeypatch.setattr(xla, "_DISABLE", "no_such_function")
    with xla.disabled() as found:
        assert not found
        assert _double() == [2.0, 2.0]
