"""`save_servable`: an embedding model as the SavedModel that TF Serving loads."""

import os
import shutil
import uuid

import keras
import numpy as np
import tensorflow as tf

from circle_tf import clones, compat, graphs

__all__ = ["probe_images", "save_servable"]

_UNIT_TOLERANCE = 1e-3
_CLONE_COSINE = 0.9  # Far below rounding (0.999), far above a clone with its weights mixed up.


def save_servable(model, path, *, image_shape=None, check_unit=True):
    """Saves an embedding model as a SavedModel for TF Serving, complete or not at all.

    The SavedModel holds one copy of the weights as float32, needs neither Keras nor circle_tf to
    load, and has one signature, `serving_default`: input `images`, float32 `[B, H, W, C]`, raw
    pixels 0..255; output `embeddings`, float32 `[B, D]`, unit rows. Images of another rank or size
    and empty batches are answered with INVALID_ARGUMENT. Layers run as at inference: dropout and
    augmentation do nothing. A model trained in mixed or other precision is served by its float32
    clone (see `circle_tf.clones`). The same model saved twice gives equal fingerprints
    (`tf.saved_model.experimental.read_fingerprint`).

    Args:
        model: built `keras.Model` from raw pixels `[B, H, W, C]` to unit embeddings `[B, D]`.
        path: directory to write, on a local disk; must not exist. TF Serving wants
            `BASE_PATH/VERSION` with a whole number as VERSION.
        image_shape: `(H, W, C)` in pixels; default: the model's input shape.
        check_unit: whether to refuse a model whose embeddings are not of length 1.

    Returns:
        `path` as str.

    Raises:
        FileExistsError: `path` exists.
        TypeError: `model` is not a Keras model.
        ValueError: the model is not built, has several inputs or outputs, another rank of input
            or output, an unknown image or embedding size, embeddings that are not finite or not
            unit rows, or operations that belong to training.

    Example:
        >>> import tempfile
        >>> from circle_tf import UnitEmbedding
        >>> pixels = keras.Input((8, 8, 1))
        >>> model = keras.Model(pixels, UnitEmbedding(4)(keras.layers.Flatten()(pixels)))
        >>> path = save_servable(model, os.path.join(tempfile.mkdtemp(), "1"))
        >>> served = tf.saved_model.load(path).signatures["serving_default"]
        >>> served(images=tf.ones([3, 8, 8, 1]))["embeddings"].shape.as_list()
        [3, 4]
    """
    compat.require_keras_3("save_servable")
    path = os.path.abspath(os.fspath(path))
    _check_absent(path)
    _check_model(model)
    image_shape = _image_shape(model, image_shape)
    served = clones.as_float32(model)
    signature = _serving_default(served, image_shape)
    _check_graph(signature)
    _check_embeddings(signature, model, image_shape, check_unit=check_unit)
    if served is not model:
        _check_clone(signature, model, image_shape)
    module = tf.Module(name="servable")
    module.weights = _variables_read(signature, served)
    _save_whole(module, path, signatures={"serving_default": signature})
    return path


def probe_images(image_shape, *, batch_size, seed=0):
    """Random whole-number pixels to try a model on.

    Args:
        image_shape: `(H, W, C)`.
        batch_size: int B.
        seed: int.

    Returns:
        float32 array `[B, H, W, C]` in 0..255.

    Example:
        >>> probe_images((8, 8, 1), batch_size=2).shape
        (2, 8, 8, 1)
    """
    pixels = np.random.default_rng(seed).integers(0, 256, (batch_size, *image_shape))
    return pixels.astype(np.float32)


def _check_absent(path):
    if os.path.lexists(path):
        raise FileExistsError(
            f"{path!r} exists already. Choose another path or version, or remove it first; a "
            "model is never written over another."
        )


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"save_servable wants a keras.Model; found {type(model).__name__}.")
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights to save. Call it on a "
            "batch of images, or give it a keras.Input."
        )
    inputs = getattr(model, "inputs", None) or []
    if len(inputs) > 1:
        names = ", ".join(tensor.name for tensor in inputs)
        raise ValueError(
            f"A servable has one input, the images; the model {model.name!r} has {len(inputs)} "
            f"({names}). Save the part that embeds: keras.Model(images, embeddings)."
        )


def _image_shape(model, wanted):
    """(H, W, C) from the model and the caller, who may fill in what the model leaves open."""
    inputs = getattr(model, "inputs", None)
    known = tuple(inputs[0].shape)[1:] if inputs else (None, None, None)
    if len(known) != 3:
        raise ValueError(
            f"The model {model.name!r} must take images [B, H, W, C]; its input has shape "
            f"{(None, *known)}."
        )
    shape = known if wanted is None else tuple(wanted)
    if len(shape) != 3 or not all(isinstance(n, int | np.integer) and n > 0 for n in shape):
        raise ValueError(
            "image_shape must be (height, width, channels) in pixels, each 1 or more; found "
            f"{shape}. Give image_shape= where the model leaves a size open."
        )
    if any(have not in (None, want) for have, want in zip(known, shape, strict=True)):
        raise ValueError(
            f"image_shape {shape} does not fit the model {model.name!r}, which takes {known}."
        )
    return tuple(int(n) for n in shape)


def _serving_default(model, image_shape):
    """The concrete function of the signature; it reaches the Keras model by closure alone.

    A Keras model that tf.Module tracks is saved by its own rules: its variables are not found in
    a C++ session, or are written twice.
    """
    inputs = getattr(model, "inputs", None)
    integer = inputs and tf.as_dtype(inputs[0].dtype).is_integer

    def serve(images):
        images = _guarded(images, image_shape)
        if integer:
            images = tf.saturate_cast(tf.round(images), inputs[0].dtype)
        return {"embeddings": tf.cast(_one(model(images, training=False)), tf.float32)}

    spec = tf.TensorSpec([None, *image_shape], tf.float32, name="images")
    signature = tf.function(serve, input_signature=[spec]).get_concrete_function()
    shape = signature.structured_outputs["embeddings"].shape
    if shape.rank != 2 or shape[1] is None:
        raise ValueError(
            f"The model {model.name!r} must return embeddings [B, D] with a fixed D; its output "
            f"has shape {shape}. End it with circle_tf.UnitEmbedding(dim)."
        )
    return signature


def _guarded(images, image_shape):
    """`images`, once their shape is found right; a wrong rank can abort the process further on."""
    images = tf.ensure_shape(images, [None, *image_shape])
    height, width, channels = image_shape
    message = (
        "The batch of images is empty: send at least one image of "
        f"{height} x {width} pixels and {channels} channel(s)."
    )
    check = tf.debugging.Assert(tf.shape(images)[0] > 0, [message], name="not_empty")
    with tf.control_dependencies([check]):
        return tf.identity(images)


def _check_graph(signature):
    outputs = [tensor.name for tensor in signature.outputs]
    if found := graphs.forbidden_nodes(signature.graph.as_graph_def(), outputs):
        raise ValueError(
            f"The model cannot be served: at inference it still runs {', '.join(found)}. Take "
            "augmentation, layers called with training=True, Python functions and jit_compile "
            "out of the model that is saved."
        )


def _check_embeddings(signature, model, image_shape, *, check_unit):
    """Tries the signature on a few images."""
    images = probe_images(image_shape, batch_size=3)
    embeddings = signature(images=tf.constant(images))["embeddings"].numpy()
    if not np.isfinite(embeddings).all():
        raise ValueError(
            f"The model {model.name!r} returns NaN or infinity for ordinary pixels: its weights "
            "or its scaling of pixels 0..255 are broken. Nothing was saved."
        )
    lengths = np.linalg.norm(embeddings, axis=1)
    if check_unit and np.abs(lengths - 1).max() > _UNIT_TOLERANCE:
        raise ValueError(
            "The embeddings are not of length 1 (lengths "
            f"{lengths.min():.4g} to {lengths.max():.4g}). End the model with "
            "circle_tf.UnitEmbedding(dim), or pass check_unit=False to save it as it is."
        )


def _check_clone(signature, model, image_shape):
    """The float32 clone must agree with the model as it was trained, but for rounding."""
    images = tf.constant(probe_images(image_shape, batch_size=3))
    trained = tf.cast(_one(model(images, training=False)), tf.float32)
    cosines = -keras.losses.cosine_similarity(trained, signature(images=images)["embeddings"])
    if not np.min(cosines) >= _CLONE_COSINE:
        raise ValueError(
            f"The float32 clone of the model {model.name!r} embeds images otherwise than the model "
            f"as trained (cosine {np.min(cosines):.4f}): its config does not rebuild it. Check "
            "get_config of its own layers."
        )


def _one(outputs):
    """The only tensor of a model's outputs."""
    tensors = tf.nest.flatten(outputs)
    if len(tensors) != 1:
        raise ValueError(
            f"A servable has one output, the embeddings; the model returns {len(tensors)}. Save "
            "the part that embeds: keras.Model(model.inputs[0], embeddings)."
        )
    return tensors[0]


def _variables_read(signature, model):
    """The variables the signature reads, in the model's order: no random seeds, nothing unused."""
    read = {id(variable): variable for variable in signature.variables}
    known = [variable.value for variable in model.variables if id(variable.value) in read]
    others = read.keys() - {id(variable) for variable in known}
    return known + sorted((read[key] for key in others), key=lambda variable: variable.name)


def _save_whole(module, path, *, signatures):
    """Saves beside `path` under a hidden name, then renames: `path` is whole or is not there."""
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    hidden = os.path.join(folder, f".{name}.saving-{uuid.uuid4().hex[:12]}")
    try:
        tf.saved_model.save(module, hidden, signatures=signatures)
        _flush(hidden)
        _check_absent(path)
        os.rename(hidden, path)
    except AssertionError as error:
        # How TensorFlow reports a resource that the module does not track, such as a table.
        raise ValueError(
            f"The model holds state that cannot be served ({str(error).splitlines()[0]}). Take "
            "augmentation and lookup layers out of the model that is saved."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _flush(folder):
    """Has the files on the disk before the rename is: a power cut must not tell them apart."""
    for where, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(where, name), "rb") as file:
                os.fsync(file.fileno())
