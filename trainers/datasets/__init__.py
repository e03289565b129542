"""Data sets by name: `load(config)` with `config.name` one of `NAMES`."""

import importlib

from trainers.datasets.base import DataError, Dataset, Split

__all__ = ["NAMES", "DataError", "Dataset", "Split", "load"]

NAMES = ("glyphs", "digits", "folder", "tfrecord")


def load(config) -> Dataset:
    """Loads the data set that the config names.

    Args:
        config: a mapping with `name`, and the fields that `load` of the module of that name
            documents; fields that are missing take the defaults told there.

    Returns:
        The data set.

    Raises:
        DataError: the name is unknown, or the data cannot be used.

    Example:
        >>> load({"name": "digits"}).image_shape
        (8, 8, 1)
    """
    if config["name"] not in NAMES:
        raise DataError(
            f"Expected the data set's name to be one of {', '.join(NAMES)}, "
            f"found {config['name']!r}."
        )
    # Imported when asked for: each needs other packages.
    return importlib.import_module(f"trainers.datasets.{config['name']}").load(config)
