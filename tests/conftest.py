"""Four logical CPU devices for every test, so that strategies can be tried on any machine."""

import os

# Commands are tested as a newcomer runs them: setting this makes them show TensorFlow's notes.
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)

import tensorflow as tf  # noqa: E402

_CPU = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(_CPU, [tf.config.LogicalDeviceConfiguration()] * 4)
