"""Faces: pairs of pictures, the templates of IJB-C, and identification among distractors."""

import functools
import os

import numpy as np

from circle_tf.evaluation import identification, templates, verification
from circle_tf.utils import command_lines, image_files
from trainers.cli import commands
from trainers.datasets import base, folder
from trainers.datasets.faces import face_bin, ijbc, lfw
from trainers.datasets.published import layouts
from trainers.evaluation import face_images

__all__ = ["identify", "protocols", "verify_pairs", "verify_templates"]

_FOLDS = 10
_TEMPLATE_FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def protocols(*, pairs=(), ijbc="", probes="", distractors=""):
    """The protocols that a command is asked for.

    Args:
        pairs: paths of verification sets, as of `verify_pairs`.
        ijbc: path of IJB-C, as of `verify_templates`; empty: none.
        probes: folder, as of `identify`; empty: none.
        distractors: folder, with `probes`.

    Returns:
        dict of name to `fn(model) -> dict of numbers`.

    Raises:
        commands.ConfigError: probes without distractors or the reverse, or two sets of one name.

    Example:
        >>> list(protocols(pairs=["sets/lfw.bin"], ijbc="IJBC"))
        ['lfw', 'ijbc']
    """
    if bool(probes) != bool(distractors):
        raise commands.ConfigError("Identification wants both --probes and --distractors.")
    found = {}
    for path in pairs:
        name = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
        if name in found:
            raise commands.ConfigError(f"Two verification sets are called {name!r}: rename one.")
        found[name] = functools.partial(verify_pairs, path=path)
    if ijbc:
        found["ijbc"] = functools.partial(verify_templates, path=ijbc)
    if probes:
        found["identification"] = functools.partial(
            identify, probes=probes, distractors=distractors
        )
    return found


def verify_pairs(model, path):
    """Accuracy over ten folds and TAR at FAR of a model on pairs of pictures.

    Pictures are resized to the model's input, embedded with their mirror images (the flip test),
    and compared by cosine.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        path: a `.bin` file, or the folder of LFW with `lfw` and `pairs.txt`.

    Returns:
        dict as of `circle_tf.evaluation.verification.verification_report`.

    Raises:
        base.DataError: it is not there, holds no pairs in ten folds, or a picture cannot be read.
    """
    is_file = os.path.isfile(path)
    pictures, places, same = _read_bin(path) if is_file else _read_lfw(path)
    if not len(same) or len(same) % _FOLDS or same.all() or not same.any():
        raise base.DataError(
            f"{path}: expected pairs of both kinds, a multiple of {_FOLDS} for the ten folds; "
            f"found {same.sum()} pairs of one person and {(~same).sum()} of two."
        )
    kind = "face_bin" if is_file else "lfw"
    embeddings = face_images.embed(
        model,
        pictures,
        title=os.path.basename(os.path.normpath(path)),
        check=_check_command(path, f"--dataset={kind}"),
    )
    similarities = verification.pair_similarities(*(embeddings[rows] for rows in places))
    return verification.verification_report(similarities, same, folds=_FOLDS)


def _read_bin(path):
    """(pictures, places of the first and second of each pair, same)."""
    contents, same = face_bin.read(path)
    names = [f"{path}: picture {number}" for number in range(len(contents))]
    rows = np.arange(len(contents)).reshape(-1, 2).T
    return face_images.Pictures(names, contents), rows, same


def _read_lfw(path):
    root = layouts.find_root(path, [], holds="pairs.txt", name="lfw")
    first, second, same = lfw.read_pairs(root)
    names, places = np.unique([*first, *second], return_inverse=True)
    files = [os.path.join(root, name) for name in names]
    return face_images.Pictures(files), places.reshape(2, -1), same


def verify_templates(model, path):
    """TAR at FAR of a model on the pairs of templates of IJB-C.

    Faces are aligned by their five points, embedded with their mirror images, averaged within a
    medium and added over media.

    Args:
        model: keras.Model from pixels `[B, H, H, C]` to embeddings `[B, D]`.
        path: the folder with `meta` and `loose_crop`.

    Returns:
        dict: `tar_at_far_{far}` of 1e-6 to 1e-1, and the counts `templates` and `pairs`.

    Raises:
        base.DataError: it is not there, a list is wrong, a picture cannot be read, or the model
            takes no square pictures.
    """
    height, width = model.input_shape[1:3]
    if height != width:
        raise base.DataError(
            f"{path}: faces are aligned to squares, and the model takes {height} x {width} pixels. "
            "Train one with dataset.image_width 0."
        )
    protocol = ijbc.read(path)
    files = [os.path.join(protocol.folder, name) for name in protocol.files]
    rows = face_images.embed(
        model,
        face_images.Pictures(files, points=protocol.points),
        title="IJB-C",
        check=_check_command(path, "--dataset=ijbc"),
    )
    ids, found = templates.template_embeddings(rows, protocol.templates, protocol.media)
    pairs = (protocol.first, protocol.second, protocol.same)
    if np.unique(protocol.same).size < 2:
        raise base.DataError(f"{path}: expected pairs of one person and of two; found one kind.")
    report = templates.template_report(ids, found, *pairs, fars=_TEMPLATE_FARS)
    return {**report, "templates": len(ids), "pairs": len(protocol.same)}


def identify(model, probes, distractors):
    """Rank-k and TAR at FAR of a model on people among strangers.

    Pictures are resized to the model's input and embedded with their mirror images.

    Args:
        model: keras.Model from pixels `[B, H, W, C]` to embeddings `[B, D]`.
        probes: folder with a sub-folder of pictures for each person.
        distractors: folder of pictures of others, in sub-folders or not.

    Returns:
        dict as of `circle_tf.distractor_identification`, for ranks 1 and 10 and a FAR of 1e-6; and
        the count `distractors`.

    Raises:
        base.DataError: a folder holds no pictures, nobody has two, or one cannot be read.
    """
    people = folder.collect(probes)
    if len(set(people.labels)) == len(people.labels):
        raise base.DataError(
            f"{probes}: expected people with two pictures or more; found {len(people.labels)} "
            "people with one."
        )
    others = image_files.images_below(distractors)
    if not others:
        raise base.DataError(f"{distractors}: expected pictures of other people; found none.")
    rows, strangers = (
        face_images.embed(
            model,
            face_images.Pictures(files),
            title=title,
            check=_check_command(path),
        )
        for files, title, path in (
            (list(people.examples), "probes", probes),
            (others, "distractors", distractors),
        )
    )
    report = identification.distractor_identification(
        rows, people.labels, strangers, ks=(1, 10), fars=(1e-6,)
    )
    return {**report, "distractors": len(others)}


def _check_command(path, *options):
    return command_lines.python_module("trainers.data", "check", *options, f"--path={path}")
