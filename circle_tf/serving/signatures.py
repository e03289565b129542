"""The signatures of a servable: guards, one shared embedding function, named outputs."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from circle_tf.data import decoding
from circle_tf.ops import numerics
from circle_tf.serving import image_headers
from circle_tf.serving.gallery import unit_rows

__all__ = [
    "DECODE",
    "MAX_BATCH_SIZE",
    "MAX_PIXELS",
    "NAMES",
    "NEEDS_CLASSES",
    "NEEDS_CLASS_NAMES",
    "NEEDS_CLASS_WEIGHTS",
    "NEEDS_GALLERY",
    "NEEDS_THRESHOLD",
    "VOTE_SCALE",
    "Parts",
    "as_threshold",
    "check_names",
    "concrete_functions",
    "guarded_images",
    "make_parts",
]

NEEDS_CLASS_WEIGHTS = ("class_scores", "top_classes", "top_classes_bytes")
NEEDS_CLASS_NAMES = ("top_classes", "top_classes_bytes")
NEEDS_CLASSES = ("classify",)
NEEDS_GALLERY = ("search", "search_k", "search_image", "search_image_k", "search_bytes", "classify")
NEEDS_THRESHOLD = ("verify", "verify_bytes")
DECODE = (
    "serving_bytes",
    "serving_examples",
    "verify_bytes",
    "search_bytes",
    "classify",
    "top_classes_bytes",
)
# Of the softmax over cosines that weighs the votes of neighbours.
VOTE_SCALE = 16.0
# Of a model's activations every image needs its own: a large batch takes all memory, and a kernel
# of oneDNN that gets none ends the process. TF Serving's batches are of 64 images or so.
MAX_BATCH_SIZE = 1024
# A camera of 61 megapixels is within. While it is decoded and resized, a pixel takes 18 bytes.
MAX_PIXELS = 1 << 26


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What signatures are made of; every variable is shared by all of them.

    Args:
        embed: `fn(images [B, H, W, C] float32) -> [B, D] float32`.
        image_shape: `(H, W, C)`.
        gallery: Variable `[N, D]`, unit rows; None without a gallery.
        ids: Variable `[N]`, string or int64.
        classes: Variable `[M]` string, names of the gallery's classes.
        class_rows: Variable `[N]` int32, the class of each row of the gallery.
        class_weights: Variable `[C, D]`, unit rows, `[C, S, D]` with S sub-centres; None without
            class-level labels.
        class_names: Variable `[C]` string, what the rows of `class_weights` are called.
        k: int, neighbours that a search returns and that vote in Classify; the most classes that
            top_classes returns.
        max_batch_size: int, the most rows of a batch.
        max_pixels: int, the most pixels of an image file.
        verification_threshold: float, the least cosine of two images of one class; None for none.
        search_threshold: float, the least cosine at which a neighbour names the class; None for
            none.
    """

    embed: Callable
    image_shape: tuple[int, int, int]
    gallery: tf.Variable | None = None
    ids: tf.Variable | None = None
    classes: tf.Variable | None = None
    class_rows: tf.Variable | None = None
    class_weights: tf.Variable | None = None
    class_names: tf.Variable | None = None
    k: int = 10
    max_batch_size: int = MAX_BATCH_SIZE
    max_pixels: int = MAX_PIXELS
    verification_threshold: float | None = None
    search_threshold: float | None = None


def as_threshold(value, name):
    """A threshold as it is compared with cosines, which are float32.

    Args:
        value: number of -1 or more, or None.
        name: str, what to call it in errors.

    Returns:
        float, the least of float32 that is no lower; above 1 stays above 1. None of None.

    Raises:
        ValueError: no such number.

    Example:
        >>> as_threshold(0.5, "threshold"), as_threshold(0.1, "threshold") >= 0.1
        (0.5, True)
    """
    if value is None:
        return None
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not (is_number and np.isfinite(value) and value >= -1):
        raise ValueError(f"{name} must be a number of -1 or more; found {value!r}.")
    nearest = np.float32(value)
    above = np.nextafter(nearest, np.float32(np.inf))
    return float(nearest if float(nearest) >= value else above)


def check_names(names, *, gallery, class_weights, class_names=None, verification_threshold=None):
    """The signatures wanted, in the order of the table, `serving_default` among them.

    Args:
        names: as asked for.
        gallery: gallery.Gallery or None.
        class_weights: `[C, D]`, `[C, S, D]` or None.
        class_names: `[C]` or None.
        verification_threshold: float or None.

    Returns:
        List of str.

    Raises:
        ValueError: a signature is unknown or lacks what it needs, or there are more names than
            classes, or fewer.
    """
    names = {"serving_default", *names}
    if unknown := sorted(names - set(NAMES)):
        raise ValueError(f"Unknown signatures {', '.join(unknown)}; there are {', '.join(NAMES)}.")
    needs = [
        (NEEDS_GALLERY, gallery, "gallery=, the embeddings to search in"),
        (
            NEEDS_CLASSES,
            getattr(gallery, "classes", None),
            "a gallery with classes",
        ),
        (NEEDS_CLASS_WEIGHTS, class_weights, "class_weights= of a head"),
        (NEEDS_CLASS_NAMES, class_names, "class_names=, one for each row of class_weights"),
        (NEEDS_THRESHOLD, verification_threshold, "verification_threshold=, a cosine"),
    ]
    for needing, given, what in needs:
        if (lacking := sorted(names & set(needing))) and given is None:
            raise ValueError(f"The signatures {', '.join(lacking)} need {what}.")
    classes = 0 if class_weights is None else len(class_weights)
    if class_names is not None and len(class_names) != classes:
        raise ValueError(
            f"class_names must be one for each row of class_weights, {classes}; found "
            f"{len(class_names)}."
        )
    return [name for name in NAMES if name in names]


def make_parts(
    embed, image_shape, *, gallery, class_weights, class_names=None, k, **limits_and_thresholds
):
    """Everything signatures share, the gallery and class weights as variables.

    Args:
        embed: `fn(images [B, H, W, C] float32) -> [B, D] float32`.
        image_shape: `(H, W, C)`.
        gallery: gallery.Gallery or None.
        class_weights: `[C, D]`, `[C, S, D]` or None.
        class_names: `[C]` or None.
        k: int.
        limits_and_thresholds: the other fields of Parts.

    Returns:
        Parts.
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
        stored["class_weights"] = _variable(_unit_centers(class_weights), "class_weights")
    if class_names is not None:
        stored["class_names"] = _variable(np.asarray(class_names, str), "class_names")
    return Parts(embed, image_shape, k=k, **limits_and_thresholds, **stored)


def _unit_centers(class_weights):
    weights = np.asarray(class_weights)
    if weights.ndim != 3:
        return unit_rows(weights, name="class_weights")
    rows = weights.reshape(-1, weights.shape[-1])
    return unit_rows(rows, name="class_weights").reshape(weights.shape)


def _variable(values, name):
    if values.dtype.kind == "U":
        values = np.array([value.encode() for value in values.tolist()], object)
    with tf.device("CPU:0"):  # Where strings are.
        return tf.Variable(values, trainable=False, name=name)


def concrete_functions(names, parts):
    """The concrete functions of signatures.

    Args:
        names: some of `NAMES`.
        parts: Parts, with what these signatures need.

    Returns:
        dict of name to concrete function.

    Raises:
        ValueError: the images' channels do not suit image files.
    """
    return {name: _traced(_SIGNATURES[name], parts) for name in names}


def _traced(signature, parts):
    inputs, embeddings, head = signature
    specs = inputs(parts)

    # Positional arguments, which a signature's tensors are named after.
    def serve(*tensors):
        given = dict(zip(specs, tensors, strict=True))
        return head(parts, embeddings(parts, given), given)

    ordered = [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()]
    return tf.function(serve, input_signature=ordered).get_concrete_function()


# Inputs: the specs by name.


def _images_spec(parts):
    return {"images": tf.TensorSpec([None, *parts.image_shape], tf.float32)}


def _pair_spec(parts):
    spec = tf.TensorSpec([None, *parts.image_shape], tf.float32)
    return {"images_a": spec, "images_b": spec}


def _embeddings_spec(parts):
    return {"embeddings": tf.TensorSpec([None, parts.gallery.shape[1]], tf.float32)}


def _strings_spec(*names):
    return lambda parts: {name: tf.TensorSpec([None], tf.string) for name in names}


def _with_k(spec):
    return lambda parts: {**spec(parts), "k": tf.TensorSpec([], tf.int32)}


# From inputs to embeddings.


def _embed_images(parts, given, name="images"):
    return parts.embed(guarded_images(given[name], parts.image_shape, most=parts.max_batch_size))


def _embed_pair(parts, given):
    """Both sides in one batch; `[2 * B, D]`."""
    images = _both_sides(given, [None, *parts.image_shape])
    most = 2 * parts.max_batch_size
    return parts.embed(guarded_images(images, parts.image_shape, most=most))


def _embed_pair_bytes(parts, given):
    content = _both_sides(given, [None])
    most = 2 * parts.max_batch_size
    return parts.embed(_decoded(parts, _guarded_strings(content, "image file", most=most)))


def _both_sides(given, shape):
    names = sorted(given)
    left, right = (tf.ensure_shape(given[name], shape) for name in names)
    sizes = tf.stack([tf.shape(left)[0], tf.shape(right)[0]])
    message = f"{' and '.join(names)} must be equally many; found"
    check = tf.debugging.Assert(tf.equal(sizes[0], sizes[1]), [message, sizes], name="pairs")
    with tf.control_dependencies([check]):
        return tf.concat([left, right], axis=0)


def _embed_bytes(parts, given):
    (content,) = given.values()
    content = _guarded_strings(content, "image file", most=parts.max_batch_size)
    return parts.embed(_decoded(parts, content))


def _embed_examples(parts, given):
    (examples,) = given.values()
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    examples = _guarded_strings(examples, "tf.train.Example", most=parts.max_batch_size)
    parsed = tf.io.parse_example(examples, features)
    return parts.embed(_decoded(parts, parsed["image/encoded"]))


def _guarded_embeddings(parts, given):
    embeddings = tf.ensure_shape(given["embeddings"], [None, parts.gallery.shape[1]])
    checks = [
        *_size_checks(embeddings, "embedding", most=parts.max_batch_size),
        tf.debugging.Assert(
            tf.reduce_all(tf.math.is_finite(embeddings)), ["Embeddings must be finite numbers."]
        ),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(embeddings)


def guarded_images(images, image_shape, *, most=MAX_BATCH_SIZE):
    """`images`, once their shape is found right; a wrong rank can abort the process further on.

    Args:
        images: tensor that may be of any shape when it is run.
        image_shape: `(H, W, C)`.
        most: int, the largest batch.

    Returns:
        `images`; INVALID_ARGUMENT for another rank or size, an empty batch or one too large.
    """
    images = tf.ensure_shape(images, [None, *image_shape])
    height, width, channels = image_shape
    message = f"image of {height} x {width} pixels and {channels} channel(s)"
    with tf.control_dependencies(_size_checks(images, message, of="images", most=most)):
        return tf.identity(images)


def _guarded_strings(content, what, *, most):
    content = tf.ensure_shape(content, [None])
    with tf.control_dependencies(_size_checks(content, what, most=most)):
        return tf.identity(content)


def _size_checks(batch, what, *, of=None, most):
    size = tf.shape(batch, out_type=tf.int64)[0]
    batch = f"The batch{f' of {of}' if of else ''}"
    empty = f"{batch} is empty: send at least one {what}."
    large = f"{batch} is too large: send at most {most} at a time; found"
    return [
        tf.debugging.Assert(size > 0, [empty], name="not_empty"),
        tf.debugging.Assert(size <= most, [large, size], name="not_too_large"),
    ]


def _decoded(parts, content):
    pixels = tf.TensorSpec(parts.image_shape, tf.uint8)
    decode = decoding.image_decoder(parts.image_shape)

    def checked_and_decoded(file):
        return decode(image_headers.within_pixels(file, parts.max_pixels))

    images = tf.map_fn(checked_and_decoded, content, fn_output_signature=pixels)
    return tf.cast(images, tf.float32)


# From embeddings to outputs.


def _embeddings(parts, embeddings, given):
    return {"embeddings": embeddings}


def _similarity(parts, embeddings, given):
    left, right = tf.split(numerics.safe_normalize(embeddings), 2)
    return {"similarity": tf.clip_by_value(tf.reduce_sum(left * right, axis=1), -1.0, 1.0)}


def _verify(parts, embeddings, given):
    found = _similarity(parts, embeddings, given)
    threshold = _each(parts.verification_threshold, found["similarity"])
    return found | {"same": found["similarity"] >= threshold, "threshold": threshold}


def _each(threshold, scores):
    """`[B]`: TF Serving can neither batch a scalar nor answer with one row by row."""
    return tf.fill(tf.shape(scores), tf.constant(threshold, tf.float32))


def _search(parts, embeddings, given):
    scores, rows = _neighbours(parts, embeddings, _neighbours_wanted(parts, given))
    found = {"ids": tf.gather(parts.ids, rows), "scores": scores}
    if parts.search_threshold is None:
        return found
    threshold = _each(parts.search_threshold, scores[:, 0])
    return found | {"unknown": scores[:, 0] < threshold, "threshold": threshold}


def _neighbours_wanted(parts, given):
    if "k" not in given:
        return parts.k
    k = tf.ensure_shape(given["k"], [])
    size = parts.gallery.shape[0]
    message = f"k must be 1 to {size}, the size of the gallery; found"
    in_range = tf.logical_and(k >= 1, k <= size)
    with tf.control_dependencies([tf.debugging.Assert(in_range, [message, k], name="k")]):
        return tf.identity(k)


def _neighbours(parts, embeddings, k):
    queries = numerics.safe_normalize(embeddings)
    scores = tf.matmul(queries, parts.gallery, transpose_b=True)
    return tf.math.top_k(tf.clip_by_value(scores, -1.0, 1.0), k)


def _classify(parts, embeddings, given):
    """The classes of the k nearest by weight of votes; classes beyond them are "", score 0."""
    scores, rows = _neighbours(parts, embeddings, parts.k)
    classes = tf.gather(parts.class_rows, rows)
    votes = tf.nn.softmax(VOTE_SCALE * scores)
    same = tf.equal(classes[:, :, None], classes[:, None, :])
    totals = tf.reduce_sum(tf.where(same, votes[:, None, :], 0.0), axis=2)
    earlier = tf.linalg.band_part(tf.ones([parts.k, parts.k], tf.bool), -1, 0)
    earlier = tf.linalg.set_diag(earlier, tf.zeros([parts.k], tf.bool))
    repeated = tf.reduce_any(tf.logical_and(same, earlier), axis=2)
    shown = min(parts.k, parts.classes.shape[0])
    totals, places = tf.math.top_k(tf.where(repeated, -1.0, totals), shown)
    names = tf.gather(parts.classes, tf.gather(classes, places, batch_dims=1))
    voted = totals >= 0
    return {"classes": tf.where(voted, names, ""), "scores": tf.where(voted, totals, 0.0)}


def _class_scores(parts, embeddings, given):
    unit, weights = numerics.safe_normalize(embeddings), parts.class_weights
    if weights.shape.rank == 2:
        return {"scores": tf.matmul(unit, weights, transpose_b=True)}
    # Of a class's sub-centres the nearest, as CosineClassifier does.
    return {"scores": tf.reduce_max(tf.einsum("bd,csd->bcs", unit, weights), axis=2)}


def _top_classes(parts, embeddings, given):
    """The names of the nearest classes, and their cosines: as Classify answers, [B, n] each."""
    cosines = _class_scores(parts, embeddings, given)["scores"]
    scores, rows = tf.math.top_k(cosines, min(parts.k, parts.class_weights.shape[0]))
    return {"classes": tf.gather(parts.class_names, rows), "scores": scores}


_BYTES = _strings_spec("image_bytes")

# Name: inputs, how they become embeddings, what is answered.
_SIGNATURES = {
    "serving_default": (_images_spec, _embed_images, _embeddings),
    "serving_bytes": (_BYTES, _embed_bytes, _embeddings),
    "serving_examples": (_strings_spec("examples"), _embed_examples, _embeddings),
    "similarity": (_pair_spec, _embed_pair, _similarity),
    "verify": (_pair_spec, _embed_pair, _verify),
    "verify_bytes": (
        _strings_spec("image_bytes_a", "image_bytes_b"),
        _embed_pair_bytes,
        _verify,
    ),
    "search": (_embeddings_spec, _guarded_embeddings, _search),
    "search_k": (_with_k(_embeddings_spec), _guarded_embeddings, _search),
    "search_image": (_images_spec, _embed_images, _search),
    "search_image_k": (_with_k(_images_spec), _embed_images, _search),
    "search_bytes": (_BYTES, _embed_bytes, _search),
    "classify": (_strings_spec("inputs"), _embed_examples, _classify),
    "class_scores": (_images_spec, _embed_images, _class_scores),
    "top_classes": (_images_spec, _embed_images, _top_classes),
    "top_classes_bytes": (_BYTES, _embed_bytes, _top_classes),
}
NAMES = tuple(_SIGNATURES)
