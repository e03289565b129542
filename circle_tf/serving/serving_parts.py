"""What a servable is put together from: stored weights, the embedding function, the gallery."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from circle_tf.serving import gallery as galleries
from circle_tf.serving import signatures as signature_functions
from circle_tf.serving import weights

__all__ = ["StoredWeights", "check_gallery", "check_names", "embedder", "one_output", "parts"]


class StoredWeights:
    """The variables of a servable, and the model's weights as it reads them.

    Args:
        model: `keras.Model` in float32.
        dtype: how large weights are stored.
    """

    def __init__(self, model, dtype):
        self._half = {}
        if dtype != "float32":
            rounded = [weight for weight in model.weights if weights.is_rounded(weight)]
            self._half = {
                id(weight): (weight, tf.Variable(tf.cast(weight.value, dtype), name=f"half_{n}"))
                for n, weight in enumerate(rounded)
            }
        self.variables = [
            self._half[id(weight)][1] if id(weight) in self._half else weight.value
            for weight in model.variables
        ]

    def scope(self):
        """Within it Keras reads stored weights as float32."""
        if not self._half:
            return contextlib.nullcontext()
        mapping = [(weight, tf.cast(half, tf.float32)) for weight, half in self._half.values()]
        return keras.StatelessScope(state_mapping=mapping)


def embedder(model, held, image_shape, *, jit_compile):
    """The function all signatures share; it reaches the Keras model by closure alone.

    A Keras model that tf.Module tracks is saved by its own rules: its variables are not found in
    a C++ session, or are written twice.

    Args:
        model: `keras.Model` in float32.
        held: StoredWeights of it.
        image_shape: `(H, W, C)`.
        jit_compile: whether XLA compiles it.

    Returns:
        `tf.function` from images `[B, H, W, C]` to embeddings `[B, D]`, float32.

    Raises:
        ValueError: the model has several outputs, or not `[B, D]`.
    """
    inputs = getattr(model, "inputs", None)
    integer = inputs and tf.as_dtype(inputs[0].dtype).is_integer

    def embed(images):
        if integer:
            images = tf.saturate_cast(tf.round(images), inputs[0].dtype)
        with held.scope():
            return tf.cast(one_output(model(images, training=False)), tf.float32)

    spec = tf.TensorSpec([None, *image_shape], tf.float32, name="images")
    shared = tf.function(embed, input_signature=[spec], jit_compile=jit_compile or None)
    shape = shared.get_concrete_function().structured_outputs.shape
    if shape.rank != 2 or shape[1] is None:
        raise ValueError(
            f"The model {model.name!r} must return embeddings [B, D] with a fixed D; its output "
            f"has shape {shape}. End it with circle_tf.UnitEmbedding(dim)."
        )
    return shared


def parts(embed, image_shape, gallery, class_weights, k):
    """Everything signatures share, the gallery and class weights as variables.

    Args:
        embed: from `embedder`.
        image_shape: `(H, W, C)`.
        gallery: galleries.Gallery or None.
        class_weights: `[C, D]` or None.
        k: int.

    Returns:
        signatures.Parts.
    """
    stored = {}
    if gallery is not None:
        stored["gallery"] = _variable(gallery.embeddings, "gallery")
        stored["ids"] = _variable(gallery.ids, "ids")
        if gallery.classes is not None:
            classes, rows = np.unique(gallery.classes, return_inverse=True)
            stored["classes"] = _variable(classes, "classes")
            stored["class_rows"] = _variable(rows.astype(np.int32), "class_rows")
    if class_weights is not None:
        rows = galleries.unit_rows(class_weights, name="class_weights")
        stored["class_weights"] = _variable(rows, "class_weights")
    return signature_functions.Parts(embed, image_shape, k=k, **stored)


def _variable(values, name):
    if values.dtype.kind == "U":
        values = np.array([value.encode() for value in values.tolist()], object)
    with tf.device("CPU:0"):  # Where strings are.
        return tf.Variable(values, trainable=False, name=name)


def check_names(names, *, gallery, class_weights):
    """The signatures wanted, in the order of the table, `serving_default` among them.

    Args:
        names: as asked for.
        gallery: galleries.Gallery or None.
        class_weights: `[C, D]` or None.

    Returns:
        List of str.

    Raises:
        ValueError: a signature is unknown or lacks what it needs.
    """
    names = {"serving_default", *names}
    if unknown := sorted(names - set(signature_functions.NAMES)):
        raise ValueError(
            f"Unknown signatures {', '.join(unknown)}; there are "
            f"{', '.join(signature_functions.NAMES)}."
        )
    needs = [
        (signature_functions.NEEDS_GALLERY, gallery, "gallery=, the embeddings to search in"),
        (
            signature_functions.NEEDS_CLASSES,
            getattr(gallery, "classes", None),
            "a gallery with classes",
        ),
        (signature_functions.NEEDS_CLASS_WEIGHTS, class_weights, "class_weights= of a head"),
    ]
    for needing, given, what in needs:
        if (lacking := sorted(names & set(needing))) and given is None:
            raise ValueError(f"The signatures {', '.join(lacking)} need {what}.")
    return [name for name in signature_functions.NAMES if name in names]


def check_gallery(gallery, model, k, names):
    """The gallery if a signature reads it, once it is known to be this model's.

    Args:
        gallery: galleries.Gallery or None.
        model: `keras.Model`.
        k: int.
        names: signatures.

    Returns:
        galleries.Gallery or None.

    Raises:
        ValueError: another model's, other dimensions, k out of range.
    """
    if gallery is None or not set(names) & set(signature_functions.NEEDS_GALLERY):
        return None
    own = galleries.embedder_fingerprint(model)
    if gallery.source not in (None, own):
        raise ValueError(
            f"The gallery was embedded by another model (fingerprint {gallery.source}; this model "
            f"has {own}): distances to it mean nothing. Embed the gallery again with this model."
        )
    dim = model.output_shape[-1]
    if gallery.dim != dim:
        raise ValueError(f"The gallery has {gallery.dim} dimensions, the model {dim}.")
    if isinstance(k, bool) or not 1 <= k <= len(gallery):
        raise ValueError(f"k must be 1 to {len(gallery)}, the size of the gallery; found {k}.")
    return gallery


def one_output(outputs):
    """The only tensor of a model's outputs.

    Args:
        outputs: what the model returns.

    Returns:
        Tensor.

    Raises:
        ValueError: there are several.
    """
    tensors = tf.nest.flatten(outputs)
    if len(tensors) != 1:
        raise ValueError(
            f"A servable has one output, the embeddings; the model returns {len(tensors)}. Save "
            "the part that embeds: keras.Model(model.inputs[0], embeddings)."
        )
    return tensors[0]
