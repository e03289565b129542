"""Class-disjoint folds of a data set's training classes, to choose settings by."""

import dataclasses
import hashlib

import numpy as np

from trainers.datasets import base

__all__ = ["fold_of"]


def fold_of(dataset: base.Dataset, *, folds: int, fold: int) -> base.Dataset:
    """A data set in which some of the training classes take the place of the unseen ones.

    Classes are dealt out in the order of a hash of their names: every class is held out in exactly
    one fold, the same one on every machine. The test classes are in none.

    Args:
        dataset: what is divided.
        folds: how many, 2 or more.
        fold: which, 0 to `folds` - 1.

    Returns:
        The data set without queries and gallery.

    Raises:
        DataError: numbers out of range, or fewer than two classes on either side.

    Example:
        >>> from trainers import datasets
        >>> digits = datasets.load({"name": "digits"})
        >>> held = [fold_of(digits, folds=2, fold=fold).test.class_names for fold in (0, 1)]
        >>> sorted(held[0] + held[1])
        ['0', '1', '2', '3', '4']
    """
    if folds < 2 or not 0 <= fold < folds:
        raise base.DataError(
            "Expected dataset.folds of 2 or more (0 is off) and dataset.fold from 0 to one less; "
            f"found {folds} and {fold}."
        )
    names = dataset.train.class_names
    order = sorted(range(len(names)), key=lambda label: _hash(names[label]))
    held_out = np.array(order[fold::folds], np.int64)
    trained = np.setdiff1d(np.arange(len(names)), held_out)
    if len(held_out) < 2 or len(trained) < 2:
        raise base.DataError(
            f"Expected two classes or more on both sides of each fold, found {len(held_out)} to "
            f"hold out and {len(trained)} to train on of {len(names)} in {folds} folds. Set "
            "dataset.folds lower."
        )
    train, test = dataset.train.of_classes(trained), dataset.train.of_classes(held_out)
    return dataclasses.replace(
        dataset,
        train=train,
        test=test,
        queries=None,
        gallery=None,
        report=f"{dataset.report}\nFold {fold} of {folds}: {len(train)} examples of {len(trained)} "
        f"classes to train on, {len(test)} of {len(held_out)} of them held out.",
    )


def _hash(name):
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
