"""Stanford Online Products: 120,053 images of 22,634 products (Song et al., CVPR 2016)."""

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "sop"
_EXPECTED = {"train": (59_551, 11_318), "test": (60_502, 11_316)}
_HEADER = "image_id class_id super_class_id path"


def load(config) -> base.Dataset:
    """SOP to train on and for leave-one-out retrieval; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there, or a list is not.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by `Ebay_train.txt` and `Ebay_test.txt`.

    Args:
        path: the folder it was unpacked into.

    Returns:
        layouts.Layout with `train` and `test`.

    Raises:
        DataError: it is not there, or a list is not.
    """
    root = layouts.find_root(path, ["Stanford_Online_Products"], holds="Ebay_train.txt", name=_NAME)
    problems, parts = [], {}
    for part in ("train", "test"):
        header, *lines = layouts.read_lines(root, f"Ebay_{part}.txt", name=_NAME) or [""]
        if header != _HEADER:
            problems.append(f"Ebay_{part}.txt does not begin with {_HEADER!r}: {header!r}.")
        rows = [line.split() for line in lines]
        good = [row for row in rows if len(row) == 4 and row[1].isdecimal()]
        if len(good) < len(rows):
            problems.append(f"Ebay_{part}.txt: {len(rows) - len(good)} lines are not {_HEADER!r}.")
        parts[part] = layouts.Part([row[3] for row in good], [f"{int(r[1]):05d}" for r in good])
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems)
