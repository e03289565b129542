"""The strategy over two devices, one object for all tests of a process."""

import functools

import tensorflow as tf


@functools.cache
def mirrored():
    """A second one would number its collectives from the start, and meet the first one's shapes."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
