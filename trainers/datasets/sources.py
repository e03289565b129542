"""Where images are, in words that other processes can be told."""

import os
from typing import NamedTuple

from trainers import datasets
from trainers.datasets import base, folder, omniglot, table, table_files, tfds, tfrecord
from trainers.datasets.published import layouts

__all__ = ["Source", "collect"]


class Source(NamedTuple):
    """People's own images, or a data set.

    Args:
        path: folder with a sub-folder for each class, table, or TFRecord files; of a data set where
            it is.
        dataset: "", one of `trainers.datasets.LAYOUTS`, omniglot, or tfds:NAME.
        columns: mapping of names of columns, or of tfds' features (path, label).
    """

    path: str
    dataset: str = ""
    columns: dict | None = None


def collect(source: Source) -> dict:
    """Lists the images by part, without reading them.

    Args:
        source: where they are.

    Returns:
        dict of part to collection.Collection; `all` where they are not divided.

    Raises:
        base.DataError: there is nothing that could be used.
    """
    path, dataset, columns = source
    if dataset.startswith(tfds.PREFIX):
        features = {"path": "image_feature", "label": "label_feature"}
        if odd := sorted(set(columns or {}) - set(features)):
            raise base.DataError(f"{dataset} has an image (path) and a label, no {odd[0]}.")
        named = {features[name]: value for name, value in (columns or {}).items()}
        return tfds.collect(dataset, path, **named)
    if dataset == "omniglot":
        return {"all": omniglot.collect(path)}
    if dataset:
        layout = datasets.read_layout(dataset, path)
        return {part: layouts.collection_of(layout, part) for part in layout.parts}
    if table_files.is_table(path):
        return table.collect(path, columns)
    return {"all": (tfrecord if _holds_records(path) else folder).collect(path)}


def _holds_records(path):
    if os.path.isfile(path):
        return True
    return os.path.isdir(path) and any("tfrecord" in name for name in os.listdir(path))
