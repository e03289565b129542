"""Cars196: 16,185 images of 196 cars (Krause et al., 2013); the first 98 classes train."""

import os

from trainers.datasets import base
from trainers.datasets.published import layouts

__all__ = ["read", "load"]

_NAME = "cars196"
_EXPECTED = {"train": (8_054, 98), "test": (8_131, 98)}
_LAST_TRAINED = 98
_ONE_FILE = "cars_annos.mat"
# As it was published first: two folders, split for classification; retrieval takes all of both.
_TWO_FILES = {
    os.path.join("devkit", "cars_train_annos.mat"): "cars_train",
    os.path.join("devkit", "cars_test_annos_withlabels.mat"): "cars_test",
}


def load(config) -> base.Dataset:
    """Cars196 to train on and for leave-one-out retrieval; see `layouts.to_dataset`.

    Args:
        config: `path`, the folder it was unpacked into, and the fields of `layouts.to_dataset`.

    Raises:
        DataError: it is not there, or its annotations cannot be read.
    """
    return layouts.to_dataset(read(config.get("path", "")), config)


def read(path: str) -> layouts.Layout:
    """Lists the images by the annotations, in either of the two forms they come in.

    Args:
        path: the folder it was unpacked into, with `cars_annos.mat` and `car_ims`, or with
            `devkit`, `cars_train` and `cars_test`.

    Returns:
        layouts.Layout with `train` and `test`.

    Raises:
        DataError: it is not there, or its annotations cannot be read.
    """
    if os.path.isfile(os.path.join(path, _ONE_FILE)):
        found = [(str(file), label) for file, label in _annotations(path, _ONE_FILE)]
        return _layout(path, found, [])
    root = layouts.find_root(path, ["cars196", "stanford_cars"], holds="devkit", name=_NAME)
    found, problems = [], []
    for file, folder in _TWO_FILES.items():
        if os.path.isfile(os.path.join(root, file)):
            found += [(os.path.join(folder, n), label) for n, label in _annotations(root, file)]
        else:
            problems.append(f"{file} is not there, and so the images of {folder} have no labels.")
    return _layout(root, found, problems)


def _layout(root, found, problems):
    parts = {"train": layouts.Part([], []), "test": layouts.Part([], [])}
    for file, label in found:
        part = parts["train" if label <= _LAST_TRAINED else "test"]
        part.files.append(file)
        part.classes.append(f"{label:03d}")
    return layouts.Layout(_NAME, root, parts, _EXPECTED, problems)


def _annotations(root, file):
    """(name of the file, class from 1 on) of each image."""
    from scipy import io

    try:
        entries = io.loadmat(os.path.join(root, file), squeeze_me=True)["annotations"].reshape(-1)
        name = "fname" if "fname" in entries.dtype.names else "relative_im_path"
        return [(str(entry[name]), int(entry["class"])) for entry in entries]
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        NotImplementedError,
        io.matlab.MatReadError,
    ) as error:
        raise base.DataError(
            f"{_NAME}: expected annotations with the fields class and fname (or relative_im_path) "
            f"in {os.path.join(root, file)!r}, found none ({error}). Download it again."
        ) from error
