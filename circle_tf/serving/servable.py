"""`save_servable`: an embedding model as the SavedModel that TF Serving loads.

It takes the model's float32 clone and decides how its weights are stored (weights.py), makes one
embedding function of them (here), traces the signatures around it and the gallery (signatures.py,
gallery.py), sees that their graphs can be served (graph_checks.py) and that they answer as the
model does, and saves them whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Sequence
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from circle_tf import compat
from circle_tf.serving import graph_checks
from circle_tf.serving.gallery import Gallery, check_gallery
from circle_tf.serving.signatures import (
    MAX_BATCH_SIZE,
    MAX_PIXELS,
    NEEDS_CLASS_NAMES,
    NEEDS_CLASS_WEIGHTS,
    NEEDS_GALLERY,
    as_threshold,
    check_names,
    concrete_functions,
    make_parts,
)
from circle_tf.serving.weights import StoredWeights, served_model
from circle_tf.utils import checks

__all__ = ["probe_images", "save_servable"]

_UNIT_TOLERANCE = 1e-3
_CLONE_COSINE = 0.9  # Far below rounding (0.999), far above a clone with its weights mixed up.


def save_servable(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    image_shape: Sequence[int] | None = None,
    check_unit: bool = True,
    signatures: Iterable[str] = ("serving_default",),
    gallery: Gallery | None = None,
    k: int = 10,
    class_weights: ArrayLike | None = None,
    class_names: ArrayLike | None = None,
    weights: Literal["float32", "float16", "bfloat16"] = "float32",
    jit_compile: bool = False,
    max_batch_size: int = MAX_BATCH_SIZE,
    max_pixels: int = MAX_PIXELS,
    verification_threshold: float | None = None,
    search_threshold: float | None = None,
) -> str:
    """Saves an embedding model as a SavedModel for TF Serving, complete or not at all.

    The SavedModel holds one copy of the weights, needs neither Keras nor circle_tf to load, and has
    the signatures asked for, among them always `serving_default`:

        serving_default    images float32 [B, H, W, C], raw pixels 0..255 -> embeddings [B, D]
        serving_bytes      image_bytes string [B], image files -> embeddings [B, D]
        serving_examples   examples string [B], tf.Example with image/encoded -> embeddings [B, D]
        similarity         images_a, images_b [B, H, W, C] -> similarity [B], cosines
        verify             images_a, images_b -> similarity [B], same [B] bool, threshold [B]
        verify_bytes       image_bytes_a, image_bytes_b string [B] -> similarity, same, threshold
        search             embeddings [B, D] -> ids [B, k], scores [B, k], the nearest first; with
                           search_threshold also unknown [B] bool, threshold [B]
        search_image       images -> as search
        search_bytes       image_bytes -> as search
        search_k           embeddings, k int32 scalar -> as search
        search_image_k     images, k int32 scalar -> as search
        classify           inputs string [B], tf.Example with image/encoded -> classes string
                           [B, n], scores [B, n]: for TF Serving's Classify; votes of the k nearest,
                           weighed by softmax(16 * cosine) and added up by class
        class_scores       images -> scores [B, C], cosines to the class weights
        top_classes        images -> classes string [B, n], scores [B, n], the nearest first: names
                           of the n = min(k, C) classes with the largest cosines
        top_classes_bytes  image_bytes -> classes, scores

    Numbers are float32 whatever the model was trained in. A batch of another rank, size or dtype,
    an empty one or one too large, unequal pairs, k out of range, files that cannot be decoded and
    those whose header asks for too many pixels are answered with INVALID_ARGUMENT. Image files are
    decoded and resized as in training. Layers run as at inference: dropout and augmentation do
    nothing. A model trained in mixed or other precision is served by its float32 clone (see
    weights.py). The same model saved twice gives equal fingerprints
    (`tf.saved_model.experimental.read_fingerprint`).

    Args:
        model: built `keras.Model` from raw pixels `[B, H, W, C]` to unit embeddings `[B, D]`.
        path: directory to write, on a local disk; must not exist. TF Serving wants
            `BASE_PATH/VERSION` with a whole number as VERSION.
        image_shape: `(H, W, C)` in pixels; default: the model's input shape.
        check_unit: whether to refuse a model whose embeddings are not of length 1.
        signatures: names from the table above.
        gallery: `circle_tf.serving.gallery.Gallery` to search in; kept in variables.
        k: int, neighbours that searches return and that vote in `classify`; the most classes that
            `top_classes` returns.
        class_weights: `[C, D]` of `CosineClassifier` or `CircleHead`, `[C, S, D]` with sub-centres;
            for `class_scores` and `top_classes`.
        class_names: `[C]` strings, what the rows of `class_weights` are called.
        weights: how large weights are stored: `float32`, `float16`, `bfloat16`. They are cast to
            float32 when they are used.
        jit_compile: whether XLA compiles the model. Stock TF Serving refuses such a model; start it
            with --xla_cpu_compilation_enabled=true.
        max_batch_size: int, the most images, pairs, files, tf.Examples or embeddings that a request
            may have. Their activations must fit into the server's memory.
        max_pixels: int, the most pixels, height times width, of an image file before it is resized;
            more are refused by the file's header, before anything is decoded. Decoding takes about
            18 bytes each: 1.2 GB for the default, which a camera of 61 megapixels stays below.
        verification_threshold: float of -1 or more, the cosine from which on `verify` says that two
            images are of one class; `circle_tf.calibrate` finds it.
        search_threshold: float of -1 or more, the cosine of the nearest neighbour below which
            searches say that the image is of no class of the gallery. Thresholds are rounded up
            to float32.

    Returns:
        `path` as str.

    Raises:
        FileExistsError: `path` exists.
        TypeError: `model` is not a Keras model.
        ValueError: the model is not built, has several inputs or outputs, another rank of input
            or output, an unknown image or embedding size, embeddings that are not finite or not
            unit rows, or operations that belong to training; a signature is unknown or lacks what
            it needs; the gallery is another model's or has other dimensions; k is out of range; a
            limit is not a whole number of 1 or more; a threshold is not a number of -1 or more.

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
    limits = {"max_batch_size": max_batch_size, "max_pixels": max_pixels}
    limits = {name: checks.whole_number(limit, name, least=1) for name, limit in limits.items()}
    verification_threshold = as_threshold(verification_threshold, "verification_threshold")
    search_threshold = as_threshold(search_threshold, "search_threshold")
    _check_model(model)
    image_shape = _image_shape(model, image_shape)
    names = check_names(
        signatures,
        gallery=gallery,
        class_weights=class_weights,
        class_names=class_names,
        verification_threshold=verification_threshold,
    )
    served = served_model(model, weights=weights)
    stored = StoredWeights(served, weights)
    embed = _embedder(served, stored, image_shape, jit_compile=jit_compile)
    searches = bool(set(names) & set(NEEDS_GALLERY))
    if searches:
        check_gallery(gallery, model, k=k)
    parts = make_parts(
        embed,
        image_shape,
        gallery=gallery if searches else None,
        class_weights=class_weights if set(names) & set(NEEDS_CLASS_WEIGHTS) else None,
        class_names=class_names if set(names) & set(NEEDS_CLASS_NAMES) else None,
        k=k,
        verification_threshold=verification_threshold,
        search_threshold=search_threshold,
        **limits,
    )
    functions = concrete_functions(names, parts)
    for function in functions.values():
        _check_graph(function, xla=jit_compile)
    default = functions["serving_default"]
    _check_embeddings(default, model, image_shape, check_unit=check_unit)
    if served is not model:
        _check_clone(default, model, image_shape)
    module = tf.Module(name="servable")
    module.weights = _variables_read(functions.values(), stored.variables)
    _save_whole(module, path, signatures=functions)
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


def _embedder(model, stored, image_shape, *, jit_compile):
    """The `tf.function` from images to embeddings `[B, D]` float32, which all signatures share.

    It reaches the Keras model by closure alone: a Keras model that tf.Module tracks is saved by
    its own rules, its variables are not found in a C++ session, or are written twice.
    """
    inputs = getattr(model, "inputs", None)
    integer = inputs and tf.as_dtype(inputs[0].dtype).is_integer

    def embed(images):
        if integer:
            images = tf.saturate_cast(tf.round(images), inputs[0].dtype)
        with stored.scope(), _functions_inlined():
            return tf.cast(_one_output(model(images, training=False)), tf.float32)

    spec = tf.TensorSpec([None, *image_shape], tf.float32, name="images")
    shared = tf.function(embed, input_signature=[spec], jit_compile=jit_compile or None)
    shape = shared.get_concrete_function().structured_outputs.shape
    if shape.rank != 2 or shape[1] is None:
        raise ValueError(
            f"The model {model.name!r} must return embeddings [B, D] with a fixed D; its output "
            f"has shape {shape}. End it with circle_tf.UnitEmbedding(dim)."
        )
    return shared


@contextlib.contextmanager
def _functions_inlined():
    """Traces what a net's own functions do in their place, without a function.

    Keras compiles grouped convolutions by XLA, which TF Serving does not: their gradients on CPUs
    need it, their values do not.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _one_output(outputs):
    """The only tensor of a model's outputs."""
    tensors = tf.nest.flatten(outputs)
    if len(tensors) != 1:
        raise ValueError(
            f"A servable has one output, the embeddings; the model returns {len(tensors)}. Save "
            "the part that embeds: keras.Model(model.inputs[0], embeddings)."
        )
    return tensors[0]


def _check_graph(signature, *, xla):
    outputs = [tensor.name for tensor in signature.outputs]
    if found := graph_checks.forbidden_nodes(signature.graph.as_graph_def(), outputs, xla=xla):
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
    trained = tf.cast(_one_output(model(images, training=False)), tf.float32)
    cosines = -keras.losses.cosine_similarity(trained, signature(images=images)["embeddings"])
    if not np.min(cosines) >= _CLONE_COSINE:
        raise ValueError(
            f"The float32 clone of the model {model.name!r} embeds images otherwise than the model "
            f"as trained (cosine {np.min(cosines):.4f}): its config does not rebuild it. Check "
            "get_config of its own layers."
        )


def _variables_read(functions, variables):
    """The variables signatures read, in the model's order: no random seeds, nothing unused."""
    read = {id(variable): variable for function in functions for variable in function.variables}
    known = [variable for variable in variables if id(variable) in read]
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
