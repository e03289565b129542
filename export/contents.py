"""What a servable holds beside the embedding model."""

import dataclasses

import numpy as np

from circle_tf import clones, galleries, servable

__all__ = ["Contents"]


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """The options of `circle_tf.save_servable`, as publishing, verifying and reporting share them.

    Args:
        signatures: names of signatures.
        gallery: circle_tf.galleries.Gallery, or None.
        k: int, neighbours of searches.
        class_weights: `[C, D]`, or None.
        weights: how large weights are stored.
        jit_compile: whether XLA compiles the model.
    """

    signatures: tuple[str, ...] = ("serving_default",)
    gallery: galleries.Gallery | None = None
    k: int = 10
    class_weights: np.ndarray | None = None
    weights: str = "float32"
    jit_compile: bool = False

    def save(self, model, path, *, image_shape):
        """`circle_tf.save_servable` with these options."""
        options = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return servable.save_servable(model, path, image_shape=image_shape, **options)

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
        return sum(parts)

    def _bytes_of(self, weight):
        size = weight.value.dtype.size * int(np.prod(weight.shape))
        return size // 2 if self.weights != "float32" and clones.is_rounded(weight) else size


def _column_bytes(values):
    if values.dtype.kind != "U":
        return values.nbytes
    return sum(len(value.encode()) + 5 for value in values.tolist())  # And its length.
