"""Batches of P classes x K examples, records by their row, and decoding in the graph."""

from circle_tf.data.records import RecordFiles
from circle_tf.data.sampling import PKSampler, pk_dataset

__all__ = ["PKSampler", "RecordFiles", "pk_dataset"]
