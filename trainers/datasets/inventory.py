"""What a data set holds, as a run keeps it: to find out later whether it is still the same."""

import hashlib
import json
import zlib

import numpy as np

from trainers.datasets import base

__all__ = ["changes", "checksum", "names_of", "take"]

_PARTS = {"train": "train", "test": "test", "query": "queries", "gallery": "gallery"}


def take(dataset):
    """Classes, split, and a digest of the examples of each class.

    It is the same on every machine and for every copy: of files it knows the path within the data
    set and the size, of records their lengths (see `base.Split.identities`), of pictures in memory
    their number.

    Args:
        dataset: base.Dataset.

    Returns:
        dict for JSON: `name` of the data set, and `parts`: of `train`, `test` and, where there are
        such, `query` and `gallery` the lists `classes` (names, in the order of the labels),
        `examples` (how many) and `digests`.

    Example:
        >>> from trainers import datasets
        >>> take(datasets.load({"name": "digits"}))["parts"]["test"]["classes"]
        ['5', '6', '7', '8', '9']
    """
    splits = {part: getattr(dataset, field) for part, field in _PARTS.items()}
    parts = {part: _columns(split) for part, split in splits.items() if split is not None}
    return {"name": dataset.name, "parts": parts}


def checksum(inventory):
    """A number that differs between inventories that differ.

    Args:
        inventory: as of `take`.

    Returns:
        int, 0 to 2^32 - 1.
    """
    return zlib.crc32(json.dumps(inventory, sort_keys=True).encode())


def names_of(inventory, *parts):
    """Names of the classes that have examples in any of these parts.

    Args:
        inventory: as of `take`.
        *parts: `train`, `test`, `query`, `gallery`.

    Returns:
        set of str.
    """
    return {name for name, roles in _roles(inventory).items() if set(roles) & set(parts)}


def changes(before, now):
    """Tells what differs between two inventories: classes added, gone, moved, with other examples.

    Args:
        before: as of `take`.
        now: as of `take`.

    Returns:
        str, phrases in one line; empty if nothing differs.

    Example:
        >>> part = {"classes": ["a", "b"], "examples": [3, 4], "digests": ["", ""]}
        >>> grown = {"classes": ["a", "b", "c"], "examples": [3, 5, 4], "digests": ["", "", ""]}
        >>> changes({"parts": {"train": part}}, {"parts": {"train": grown}})
        'added: c; with other examples: b (4 before, 5 now)'
    """
    old, new = _roles(before), _roles(now)
    found = {"added": sorted(new.keys() - old.keys()), "gone": sorted(old.keys() - new.keys())}
    for name in sorted(old.keys() & new.keys()):
        if old[name].keys() != new[name].keys():
            move = f"moved from {' and '.join(old[name])} to {' and '.join(new[name])}"
            found.setdefault(move, []).append(name)
        elif old[name] != new[name]:
            counts = f"{_count(old[name])} before, {_count(new[name])} now"
            found.setdefault("with other examples", []).append(f"{name} ({counts})")
    told = [
        f"{kind}: {base.sentence_list(names, limit=5)}" for kind, names in found.items() if names
    ]
    if not told and before["parts"] != now["parts"]:
        return "the same classes in another order"
    return "; ".join(told)


def _columns(split):
    order = np.argsort(split.labels, kind="stable")
    counts = np.bincount(split.labels, minlength=len(split.class_names))
    rows = np.split(order, np.cumsum(counts)[:-1])
    return {
        "classes": list(split.class_names),
        "examples": counts.tolist(),
        "digests": [_digest(split.identities, of_class) for of_class in rows],
    }


def _digest(identities, rows):
    if identities is None:
        return ""
    text = "\n".join(identities[rows])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _roles(inventory):
    """{class: {part: [(number of examples, digest), ...]}} of classes that have examples.

    A part may have several classes of one name: of TFRecord files the labels tell them apart.
    """
    roles = {}
    for part, columns in inventory["parts"].items():
        for name, count, digest in zip(
            columns["classes"], columns["examples"], columns["digests"], strict=True
        ):
            if count:
                roles.setdefault(name, {}).setdefault(part, []).append((count, digest))
    return roles


def _count(roles):
    return sum(count for classes in roles.values() for count, _ in classes)
