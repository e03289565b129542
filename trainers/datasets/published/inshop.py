"""DeepFashion In-Shop: 52,712 images of 7,982 clothes (Liu et al., CVPR 2016)."""

import os

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "inshop"
_EXPECTED = {"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)}
_LIST = "list_eval_partition.txt"


def load(config) -> base.Dataset:
    """In-Shop to train on, with queries and gallery; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there, or the list is not.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by `list_eval_partition.txt`.

    Args:
        path: the folder it was unpacked into: the list in it or in `Eval`, images in `img` or in
            `Img/img`.

    Returns:
        layouts.Layout with `train`, `query` and `gallery`.

    Raises:
        DataError: it is not there, or the list is not.
    """
    within = "" if os.path.isfile(os.path.join(path, _LIST)) else "Eval"
    root = layouts.find_root(
        path, ["In-shop Clothes Retrieval Benchmark"], holds=os.path.join(within, _LIST), name=_NAME
    )
    lines = layouts.read_lines(root, os.path.join(within, _LIST), name=_NAME)
    problems, parts = [], {name: layouts.Part([], []) for name in _EXPECTED}
    counted, rows = (lines[0] if lines else ""), [line.split() for line in lines[2:]]
    good = [row for row in rows if len(row) == 3 and row[2] in parts]
    if not counted.isdecimal() or int(counted) != len(good):
        problems.append(f"{_LIST} counts {counted!r} images in its first line; it has {len(good)}.")
    below = "Img" if os.path.isdir(os.path.join(root, "Img")) else ""
    for file, item, part in good:
        parts[part].files.append(os.path.join(below, file))
        parts[part].classes.append(item)
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems)
