"""Tells whether face sets are complete and laid out right: LFW, `.bin` files, IJB-C, RecordIO."""

import os

import numpy as np

from circle_tf.data import decoding
from circle_tf.utils import errors
from trainers.datasets import base
from trainers.datasets.faces import face_bin, ijbc, lfw
from trainers.datasets.faces.recordio import RecordIO
from trainers.datasets.published import layouts

__all__ = ["CHECKS"]

# Pairs that the files of these names hold.
_PAIRS = {
    "lfw": 6_000,
    "agedb_30": 6_000,
    "calfw": 6_000,
    "cplfw": 6_000,
    "cfp_ff": 7_000,
    "cfp_fp": 7_000,
}
_IJBC = {"images": 469_375, "templates": 23_124, "pairs": 15_658_489}
_DECODED = 1_000  # Of millions of images, so many are looked at.


def _check_lfw(path):
    return layouts.check(lfw.read(path))


def _check_bin(path):
    """One file, or all of a folder."""
    files = [path]
    if os.path.isdir(path):
        files = sorted(os.path.join(path, f) for f in os.listdir(path) if f.endswith(".bin"))
    if not files or not os.path.isfile(files[0]):
        raise base.DataError(f"face_bin: expected a .bin file, or a folder of some, at {path!r}.")
    lines, problems = [], []
    for file in files:
        pictures, same = face_bin.read(file)
        kinds = f"{same.sum():,} of one person, {(~same).sum():,} of two"
        lines.append(f"  {os.path.basename(file)}: {len(same):,} pairs, {kinds}")
        wanted = _PAIRS.get(os.path.splitext(os.path.basename(file))[0], len(same))
        if wanted != len(same):
            problems.append(f"{file}: {len(same):,} pairs; the protocol has {wanted:,}.")
        problems += _faults({f"{file}: image {i}": image for i, image in enumerate(pictures)})
    return _report(f"face_bin in {path}:", lines, problems)


def _check_ijbc(path):
    found = ijbc.read(path)
    counts = {
        "images": len(found.files),
        "templates": len(np.unique(found.templates)),
        "pairs": len(found.same),
    }
    problems = [
        f"{counts[kind]:,} {kind}; the protocol has {wanted:,}."
        for kind, wanted in _IJBC.items()
        if counts[kind] != wanted
    ]
    folder = found.folder
    absent = [name for name in found.files if not os.path.isfile(os.path.join(folder, name))]
    if absent:
        some = base.sentence_list(absent, limit=3)
        problems.append(f"loose_crop lacks {len(absent):,} of the images: {some}.")
    contents = {}
    for name in _some([name for name in found.files if name not in set(absent)]):
        with open(os.path.join(folder, name), "rb") as stream:
            contents[f"loose_crop/{name}"] = stream.read()
    lines = [f"  {kind:<9} {count:>10,}" for kind, count in counts.items()]
    return _report(f"ijbc in {os.path.dirname(folder)}:", lines, problems + _faults(contents))


def _check_recordio(path):
    with RecordIO(path) as records:
        labels, contents, problems = set(), {}, []
        looked_at = set(_some(records.numbers))
        for number in records.numbers:
            try:
                content, label = records.read(number)
            except base.DataError as error:
                problems.append(str(error))
                continue
            labels.add(label)
            if number in looked_at:
                contents[f"record {number}"] = content
        lines = [f"  {len(records):,} images, {len(labels):,} classes; {len(contents):,} decoded"]
    return _report(f"recordio in {path}:", lines, problems[:10] + _faults(contents))


CHECKS = {
    "lfw": _check_lfw,
    "face_bin": _check_bin,
    "ijbc": _check_ijbc,
    "recordio": _check_recordio,
}


def _some(items):
    """At most so many, spread evenly."""
    return list(items)[:: -(-len(items) // _DECODED) or 1]


def _faults(contents):
    """Images that cannot be decoded, in lines."""
    import tensorflow as tf

    lines = []
    for name, content in contents.items():
        try:
            decoding.decode(tf.constant(content))
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            lines.append(f"unreadable: {name}: {errors.reason(error)}")
    return lines[:10] + ([f"{len(lines) - 10} more unreadable."] if len(lines) > 10 else [])


def _report(title, lines, problems):
    right = "All is there, as the protocol counts it."
    return [title, *lines, *base.findings(problems, none=right)]
