"""The protocols of faces that a command is asked for."""

import functools
import os

from trainers.cli import commands
from trainers.evaluation import face_identification, face_pairs, face_templates

__all__ = ["asked_for"]


def asked_for(*, pairs=(), ijbc="", probes="", distractors=""):
    """What to do with a model.

    Args:
        pairs: paths of verification sets, as of `face_pairs.verify`.
        ijbc: path of IJB-C, as of `face_templates.verify`; empty: none.
        probes: folder, as of `face_identification.identify`; empty: none.
        distractors: folder, with `probes`.

    Returns:
        dict of name to `fn(model) -> dict of numbers`.

    Raises:
        commands.ConfigError: probes without distractors or the reverse, or two sets of one name.

    Example:
        >>> list(asked_for(pairs=["sets/lfw.bin"], ijbc="IJBC"))
        ['lfw', 'ijbc']
    """
    if bool(probes) != bool(distractors):
        raise commands.ConfigError("Identification wants both --probes and --distractors.")
    found = {}
    for path in pairs:
        name = os.path.splitext(os.path.basename(os.path.normpath(path)))[0]
        if name in found:
            raise commands.ConfigError(f"Two verification sets are called {name!r}: rename one.")
        found[name] = functools.partial(face_pairs.verify, path=path)
    if ijbc:
        found["ijbc"] = functools.partial(face_templates.verify, path=ijbc)
    if probes:
        found["identification"] = functools.partial(
            face_identification.identify, probes=probes, distractors=distractors
        )
    return found
