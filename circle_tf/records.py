"""Public name of `circle_tf.data.records`."""

from circle_tf.data.records import RecordError, RecordFiles, write_index

__all__ = ["RecordError", "RecordFiles", "write_index"]
