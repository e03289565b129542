"""What signatures are tried with: right inputs with the Python model's answers, and wrong ones."""

import numpy as np
import tensorflow as tf

from circle_tf.serving import signatures

__all__ = ["as_examples", "as_png", "bad_inputs", "good_inputs", "probes"]

_PAIRS = {  # Their inputs.
    "similarity": ("images_a", "images_b"),
    "verify": ("images_a", "images_b"),
    "verify_bytes": ("image_bytes_a", "image_bytes_b"),
}
_TIE = 2e-5  # Neighbours whose cosines are closer may change places by rounding.


def probes(names, *, images, embeddings, contents):
    """Everything to try the signatures with, but for `serving_default`, which has its own checks.

    Args:
        names: the SavedModel's signatures; those that are not ours are left out.
        images: `[17, H, W, C]` float32.
        embeddings: dict of batch size to `[B, D]` of the Python model; empty without a model.
        contents: contents.Contents; None if it is not known what the SavedModel holds.

    Returns:
        List of dicts: `signature`, `good`: list of (inputs, expected, decided), `bad`: dict of
        label to inputs.
    """
    found = []
    for name in names:
        if name == "serving_default" or name not in signatures.NAMES:
            continue
        dim = contents.gallery.dim if contents and contents.gallery else None
        good = [
            _probe(name, images[:size], embeddings[size], contents)
            for size in embeddings
            if _is_known(name, contents)
        ]
        found.append({"signature": name, "good": good, "bad": bad_inputs(name, images, dim=dim)})
    return found


def good_inputs(name, images, *, embeddings=None, k=1):
    """Inputs of a signature that stand for a batch of images.

    Args:
        name: the signature.
        images: `[B, H, W, C]` float32 of whole numbers 0..255.
        embeddings: `[B, D]`, for the signatures that take them.
        k: int, for the signatures that take it.

    Returns:
        dict of input name to array.
    """
    if name in _PAIRS:
        sides = images, images[::-1]
        if name == "verify_bytes":
            sides = [_strings([as_png(image) for image in side]) for side in sides]
        return dict(zip(_PAIRS[name], sides, strict=True))
    if name in ("serving_examples", "classify"):
        contents = as_examples([as_png(image) for image in images])
        return {"examples" if name == "serving_examples" else "inputs": contents}
    if name.endswith("_bytes"):
        return {"image_bytes": _strings([as_png(image) for image in images])}
    if name in ("search", "search_k"):
        inputs = {"embeddings": embeddings}
    else:
        inputs = {"images": images}
    return inputs | ({"k": np.int32(k)} if name.endswith("_k") else {})


def bad_inputs(name, images, *, dim=None):
    """Inputs of a signature that must be refused with INVALID_ARGUMENT.

    Args:
        name: the signature.
        images: `[B, H, W, C]` float32, B of 2 or more.
        dim: int D, for the signatures that take embeddings; None leaves theirs out.

    Returns:
        dict of what is wrong to inputs.
    """
    rows = np.ones([2, dim or 1], np.float32)
    good = good_inputs(name, images[:2], embeddings=rows)
    if name in ("search", "search_k") and dim is None:
        return {}
    (first, value), *_ = good.items()
    bad = {
        "empty batch": good | {name: value[:0] for name, value in good.items() if np.ndim(value)},
        "rank too high": good | {first: value[None]},
    }
    if value.dtype != object:
        bad["rank too low"] = good | {first: value[0]}
        bad["wrong dtype"] = good | {first: value.astype(np.float64)}
        bad["wrong size"] = good | {first: value[..., :0]}
    else:
        bad["wrong dtype"] = good | {first: images[:2]}
        bad["undecodable"] = good | {first: _strings([b"neither an image nor an example"] * 2)}
    if name in _PAIRS:
        bad["unequal pairs"] = good | {first: value[:1]}
    if "k" in good:
        bad |= {"k of 0": good | {"k": np.int32(0)}, "k too large": good | {"k": np.int32(2**30)}}
    return bad


def as_png(image):
    """An image as the bytes of a PNG file.

    Args:
        image: `[H, W, C]` of numbers 0..255.

    Returns:
        bytes.
    """
    return tf.io.encode_png(tf.cast(image, tf.uint8)).numpy()


def as_examples(contents):
    """Image files as serialized `tf.train.Example`s.

    Args:
        contents: list of bytes.

    Returns:
        `[B]` array of bytes.
    """
    made = []
    for content in contents:
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
        features = tf.train.Features(feature={"image/encoded": feature})
        made.append(tf.train.Example(features=features).SerializeToString())
    return _strings(made)


def _is_known(name, contents):
    """Whether it is known what a signature should answer."""
    if contents is None:
        return False
    needs = {
        signatures.NEEDS_CLASS_WEIGHTS: contents.class_weights,
        signatures.NEEDS_GALLERY: contents.gallery,
        signatures.NEEDS_THRESHOLD: contents.verification_threshold,
    }
    return not any(name in names and given is None for names, given in needs.items())


def _strings(values):
    return np.array(values, object)


def _probe(name, images, embeddings, contents):
    """(inputs, expected outputs, which of their values rounding cannot change)."""
    k = min(3, len(contents.gallery)) if contents.gallery else 1
    inputs = good_inputs(name, images, embeddings=embeddings, k=k)
    if name.startswith("serving_"):
        return inputs, {"embeddings": embeddings}, {}
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    if name in _PAIRS:
        cosines = np.sum(unit * unit[::-1], axis=1)
        found = {"similarity": cosines}
        if name == "similarity":
            return inputs, found, {}
        above = _decisions(cosines, contents.verification_threshold)
        return inputs, found | {"same": above[0], "threshold": above[1]}, {"same": above[2]}
    if name in signatures.NEEDS_CLASS_WEIGHTS:
        weights = np.asarray(contents.class_weights, np.float64)
        weights /= np.linalg.norm(weights, axis=-1, keepdims=True)
        # One of each class, or more.
        centers = weights.reshape(len(weights), -1, weights.shape[-1])
        cosines = np.max([unit @ each.T for each in centers.transpose(1, 0, 2)], axis=0)
        if name == "class_scores":
            return inputs, {"scores": cosines}, {}
        rows, scores, decided = _largest(cosines, contents.k)
        classes = _encoded(contents.class_names[rows])
        return inputs, {"classes": classes, "scores": scores}, {"classes": decided}
    cosines = np.clip(unit @ contents.gallery.embeddings.T, -1, 1)
    rows, scores, decided = _largest(cosines, k if name.endswith("_k") else contents.k)
    if name == "classify":
        return inputs, {"scores": _votes(rows, scores, contents.gallery.classes)}, {}
    ids = contents.gallery.ids[rows]
    if ids.dtype.kind == "U":
        ids = _encoded(ids)
    found, decided = {"ids": ids, "scores": scores}, {"ids": decided}
    if contents.search_threshold is not None:
        above = _decisions(scores[:, 0], contents.search_threshold)
        found |= {"unknown": ~above[0], "threshold": above[1]}
        decided["unknown"] = above[2]
    return inputs, found, decided


def _decisions(cosines, threshold):
    """Which are above, the threshold of each, and which of them rounding cannot change."""
    thresholds = np.full(len(cosines), threshold)
    return cosines >= threshold, thresholds, np.abs(cosines - threshold) > _TIE


def _encoded(texts):
    return np.array([[value.encode() for value in row] for row in texts.tolist()], object)


def _largest(cosines, k):
    """Where the k largest of each row are, these, and which of them rounding cannot change."""
    order = np.argsort(-cosines, axis=1, kind="stable")
    ranked = np.take_along_axis(cosines, order, axis=1)
    close = -np.diff(ranked, axis=1) < _TIE
    border = np.zeros([len(cosines), 1], bool)
    ties = np.concatenate([border, close], axis=1) | np.concatenate([close, border], axis=1)
    return order[:, :k], ranked[:, :k], ~ties[:, :k]


def _votes(rows, scores, classes):
    """Scores of Classify; a tie at the last of the k neighbours may change them a little."""
    shown = min(rows.shape[1], len(np.unique(classes)))
    votes = np.exp(signatures.VOTE_SCALE * (scores - scores.max(axis=1, keepdims=True)))
    votes /= votes.sum(axis=1, keepdims=True)
    answers = np.zeros([len(rows), shown])
    for answer, neighbours, weights in zip(answers, classes[rows], votes, strict=True):
        totals = [weights[neighbours == name].sum() for name in np.unique(neighbours)]
        best = sorted(totals, reverse=True)[:shown]
        answer[: len(best)] = best
    return answers
