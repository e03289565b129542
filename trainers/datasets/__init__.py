"""Data sets by name: `load(config)` with `config.name` one of `NAMES`."""

import importlib

from trainers.datasets import folds, memory
from trainers.datasets.base import DataError, Dataset, Split
from trainers.datasets.memory import from_arrays, from_tf_data

__all__ = [
    "LAYOUTS",
    "NAMES",
    "DataError",
    "Dataset",
    "Split",
    "from_arrays",
    "from_tf_data",
    "load",
    "read_layout",
]

# Published data sets, to be downloaded from where their authors offer them.
LAYOUTS = ("market1501", "msmt17", "cub200", "cars196", "sop", "inshop")
NAMES = ("glyphs", "digits", "folder", "table", "tfrecord", "omniglot", *LAYOUTS)


def load(config) -> Dataset:
    """Loads the data set that the config names.

    Args:
        config: a mapping with `name`, and the fields that `load` of the module of that name
            documents; fields that are missing take the defaults told there. With `folds` above 0,
            fold `fold` of the training classes, see `folds.fold_of`.

    Returns:
        The data set.

    Raises:
        DataError: the name is unknown, or the data cannot be used.

    Example:
        >>> load({"name": "digits"}).image_shape
        (8, 8, 1)
    """
    if config["name"] == memory.NAME:
        raise DataError(
            "The run's data was given from Python: give it again, as dataset= of "
            "trainers.training.loop.train and trainers.outputs.report.evaluate_run."
        )
    name = "tfds" if config["name"].startswith("tfds:") else config["name"]
    if name not in ("tfds", *NAMES) or config["name"] == "tfds":
        raise DataError(
            f"Expected the data set's name to be one of {', '.join(NAMES)}, or tfds: and the name "
            f"of a set of TensorFlow Datasets; found {config['name']!r}."
        )
    # Imported when asked for: each needs other packages.
    dataset = _module(name).load(config)
    if not config.get("folds", 0):
        return dataset
    return folds.fold_of(dataset, folds=config["folds"], fold=config.get("fold", 0))


def read_layout(name: str, path: str):
    """What a published data set holds, without reading its images.

    Args:
        name: one of `LAYOUTS`.
        path: the folder it was unpacked into.

    Returns:
        trainers.datasets.published.layouts.Layout.

    Raises:
        DataError: the name is unknown, or the data set is not there.
    """
    if name not in LAYOUTS:
        raise DataError(f"Expected a data set of {', '.join(LAYOUTS)}; found {name!r}.")
    return _module(name).read(path)


def _module(name):
    room = "trainers.datasets.published" if name in LAYOUTS else "trainers.datasets"
    return importlib.import_module(f"{room}.{name}")
