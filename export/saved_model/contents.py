"""What a servable holds beside the embedding model."""

import dataclasses
import json
import os

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from circle_tf.serving import servable
from circle_tf.serving.gallery import Gallery
from circle_tf.serving.signatures import MAX_BATCH_SIZE, MAX_PIXELS
from circle_tf.serving.weights import is_rounded

__all__ = ["MANIFEST", "Contents"]

# TF Serving ignores assets.extra, but for warm-up requests; within the version's directory the
# manifest appears, moves and goes with it.
MANIFEST = os.path.join("assets.extra", "manifest.json")
_NAMED = {"gallery", "ids", "classes", "class_rows", "class_weights", "class_names"}


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """The options of `circle_tf.save_servable`, as publishing, verifying and reporting share them.

    Args:
        signatures: names of signatures.
        gallery: circle_tf.serving.gallery.Gallery, or None.
        k: int, neighbours of searches, and the most classes that are told.
        class_weights: `[C, D]`, `[C, S, D]` with sub-centres, or None.
        class_names: `[C]`, or None.
        weights: how large weights are stored.
        jit_compile: whether XLA compiles the model.
        max_batch_size: int, the most rows of a batch.
        max_pixels: int, the most pixels of an image file.
        verification_threshold: float, the cosine from which on two images are of one class.
        search_threshold: float, the cosine below which the nearest neighbour names no class.
    """

    signatures: tuple[str, ...] = ("serving_default",)
    gallery: Gallery | None = None
    k: int = 10
    class_weights: np.ndarray | None = None
    class_names: np.ndarray | None = None
    weights: str = "float32"
    jit_compile: bool = False
    max_batch_size: int = MAX_BATCH_SIZE
    max_pixels: int = MAX_PIXELS
    verification_threshold: float | None = None
    search_threshold: float | None = None

    def save(self, model, path, *, image_shape):
        """`circle_tf.save_servable` with these options."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return servable.save_servable(model, path, image_shape=image_shape, **options)

    @classmethod
    def read(cls, path):
        """What a published SavedModel holds, from its manifest and its variables.

        Args:
            path: directory of the SavedModel.

        Returns:
            Contents; of a SavedModel without a manifest only the signatures' model is known.
        """
        file = os.path.join(path, MANIFEST)
        if not os.path.exists(file):
            return cls()
        with open(file, encoding="utf-8") as stream:
            manifest = json.load(stream)
        stored = _variables(path)
        gallery = None
        if "gallery" in stored:
            classes = None
            if "classes" in stored:
                classes = _texts(stored["classes"])[stored["class_rows"]]
            source = (manifest.get("gallery") or {}).get("source_fingerprint")
            gallery = Gallery(stored["gallery"], _texts(stored["ids"]), classes, source)
        names = stored.get("class_names")
        return cls(
            signatures=tuple(manifest["signatures"]),
            gallery=gallery,
            k=manifest.get("k") or (manifest.get("gallery") or {}).get("k", cls.k),
            class_weights=stored.get("class_weights"),
            class_names=None if names is None else _texts(names),
            weights=manifest.get("weights", cls.weights),
            jit_compile=manifest.get("xla", cls.jit_compile),
            **manifest.get("limits", {}),
            **{
                f"{decision}_threshold": found["threshold"]
                for decision, found in (manifest.get("thresholds") or {}).items()
            },
        )

    def size(self, model):
        """Bytes that these contents need when each is stored once.

        Args:
            model: `keras.Model`, the one that is served.

        Returns:
            int.
        """
        parts = [self._bytes_of(weight) for weight in model.weights]
        if self.gallery is not None:
            parts += [self.gallery.embeddings.nbytes, _column_bytes(self.gallery.ids)]
            if self.gallery.classes is not None:
                parts += [_column_bytes(np.unique(self.gallery.classes)), 4 * len(self.gallery)]
        if self.class_weights is not None:
            parts.append(4 * int(np.size(self.class_weights)))
        if self.class_names is not None:
            parts.append(_column_bytes(self.class_names))
        return sum(parts)

    def _bytes_of(self, weight):
        size = weight.value.dtype.size * int(np.prod(weight.shape))
        return size // 2 if self.weights != "float32" and is_rounded(weight) else size


def _column_bytes(values):
    if values.dtype.kind != "U":
        return values.nbytes
    return sum(len(value.encode()) + 5 for value in values.tolist())  # And its length.


def _variables(path):
    """The variables beside the model's weights, by name."""
    checkpoint = tf.train.load_checkpoint(os.path.join(path, "variables", "variables"))
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        checkpoint.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
    )
    stored = [(a.full_name, a.checkpoint_key) for node in graph.nodes for a in node.attributes]
    return {name: checkpoint.get_tensor(key) for name, key in stored if name in _NAMED}


def _texts(values):
    return np.char.decode(values.astype(bytes), "utf-8") if values.dtype == object else values
