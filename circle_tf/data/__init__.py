"""Batches of P classes x K examples, records by their row, and decoding in the graph."""

from circle_tf.data.pipeline import pk_dataset
from circle_tf.data.records import RecordFiles
from circle_tf.data.sampler import PKSampler

__all__ = ["PKSampler", "RecordFiles", "pk_dataset"]
