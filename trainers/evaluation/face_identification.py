"""Identification among distractors, in folders as MegaFace and FaceScrub are unpacked."""

from circle_tf.evaluation import identification
from trainers.datasets import base, folder
from trainers.evaluation import face_images

__all__ = ["identify"]

_KS, _FARS = (1, 10), (1e-6,)


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
    others = folder.images_below(distractors)
    if not others:
        raise base.DataError(f"{distractors}: expected pictures of other people; found none.")
    rows = _embed(model, list(people.examples), title="probes", path=probes)
    strangers = _embed(model, others, title="distractors", path=distractors)
    report = identification.distractor_identification(
        rows, people.labels, strangers, ks=_KS, fars=_FARS
    )
    return {**report, "distractors": len(others)}


def _embed(model, files, *, title, path):
    check = f"python -m trainers.data check --path={path}"
    return face_images.embed(model, face_images.Pictures(files), title=title, check=check)
