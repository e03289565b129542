"""Whether a run still has the data that it began with."""

import os
import warnings

import ml_collections

from trainers import datasets
from trainers.cli import commands
from trainers.datasets import base, inventory
from trainers.outputs import workdir as workdirs

__all__ = ["as_given", "check", "keep", "load", "warn"]

_TESTED = ("test", "query", "gallery")
_REMEDY = (
    "Put the data back as it was, or give another --workdir; --allow_changed_data goes on over "
    "the data as it is now."
)


def load(files, config):
    """The data set of a run, divided as it was when the run began.

    Args:
        files: trainers.outputs.workdir.Workdir.
        config: recipe.

    Returns:
        trainers.datasets.Dataset. Classes that the run held out stay held out, also when others
        have come or gone since.

    Raises:
        trainers.datasets.DataError: the data cannot be used.
    """
    began = _began_with(files)
    # What a fold holds out follows from the names alone, and is no part of the test classes.
    if began is None or config.dataset.get("folds", 0):
        return datasets.load(config.dataset)
    held_out = tuple(began["parts"]["test"]["classes"])
    return datasets.load({**config.dataset, "test_classes": held_out})


def as_given(config, dataset):
    """The recipe of a run whose data is given from Python, as the run keeps it.

    Args:
        config: recipe, ml_collections.ConfigDict.
        dataset: trainers.datasets.Dataset.

    Returns:
        ml_collections.ConfigDict, locked, with the data set's name and size of images.
    """
    height, width, channels = dataset.image_shape
    size = {"image_size": height, "image_width": 0 if width == height else width}
    given = {**config.dataset.to_dict(), **size, "name": dataset.name, "channels": channels}
    return ml_collections.ConfigDict({**config.to_dict(), "dataset": given}).lock()


def check(files, now, *, counts_classes, allow_changes=False):
    """Refuses to go on over other data than the run began with.

    Args:
        files: trainers.outputs.workdir.Workdir.
        now: the data's `inventory.take`.
        counts_classes: bool, whether the run's state knows classes by their numbers.
        allow_changes: bool, to go on all the same where that is possible.

    Raises:
        commands.ConfigError: the data has changed, and `allow_changes` is False or numbers of
            classes would mean other classes.
    """
    began = _began_with(files)
    changes = inventory.changes(began, now) if began else ""
    if not changes:
        return
    told = f"The data of the run in {files.path} has changed ({changes})."
    if not allow_changes:
        raise commands.ConfigError(f"{told} {_REMEDY}")
    if counts_classes and began["parts"]["train"]["classes"] != now["parts"]["train"]["classes"]:
        raise commands.ConfigError(
            f"{told} Its class weights, memory or nearest classes know the classes to train on by "
            "their numbers, which would now mean other classes: it cannot go on over these, not "
            "with --allow_changed_data either. Put the data back as it was, or give another "
            "--workdir."
        )
    print(f"{told} The run goes on over it as it is now.")


def keep(files, now):
    """Writes down what the data holds, and which classes were trained on before it changed.

    Args:
        files: trainers.outputs.workdir.Workdir.
        now: the data's `inventory.take`.
    """
    began = _began_with(files)
    trained = _trained_on(began) - inventory.names_of(now, "train") if began else ()
    workdirs.write_json(files.data, {**now, "trained_before": sorted(trained)})


def warn(files, dataset):
    """Warns of data that a run did not begin with, before the run is evaluated on it.

    Args:
        files: trainers.outputs.workdir.Workdir.
        dataset: trainers.datasets.Dataset, as of `load`.

    Warns:
        UserWarning: what has changed; which classes to test on the run was trained on.
    """
    began, now = _began_with(files), inventory.take(dataset)
    if began is None:
        return
    if changes := inventory.changes(began, now):
        warnings.warn(
            f"The data of the run in {files.path} has changed ({changes}). Of what is there now, "
            "the classes to test on are evaluated.",
            stacklevel=2,
        )
    meant = inventory.names_of(began, "train") & inventory.names_of(began, *_TESTED)
    seen = (_trained_on(began) & inventory.names_of(now, *_TESTED)) - meant
    if seen:
        warnings.warn(
            "Evaluated as unseen, though the run was trained on them: "
            f"{base.sentence_list(sorted(seen), limit=5)}. The numbers are too high.",
            stacklevel=2,
        )


def _began_with(files):
    """The inventory of a run that has something to lose; None of new runs and of older ones."""
    if not files.is_begun or not os.path.exists(files.data):
        return None
    return workdirs.read_json(files.data)


def _trained_on(began):
    return inventory.names_of(began, "train") | set(began["trained_before"])
