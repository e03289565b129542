import numpy as np
import pytest

from trainers import datasets
from trainers.datasets import folds


def test_each_training_class_is_held_out_once_and_no_test_class_ever():
    whole = datasets.load({"name": "digits"})
    parts = [folds.fold_of(whole, folds=2, fold=fold) for fold in range(2)]
    held = [name for part in parts for name in part.test.class_names]
    assert sorted(held) == sorted(whole.train.class_names)
    for part in parts:
        assert not set(part.train.class_names) & set(part.test.class_names)
        assert len(part.train) + len(part.test) == len(whole.train)
        assert part.queries is part.gallery is None
        for split in (part.train, part.test):
            for label, name in enumerate(split.class_names):
                of_whole = whole.train.labels == whole.train.class_names.index(name)
                np.testing.assert_array_equal(
                    split.images()[split.labels == label], whole.train.images()[of_whole]
                )


def test_a_fold_is_asked_for_by_the_recipe():
    found = datasets.load({"name": "digits", "folds": 2, "fold": 1})
    assert "Fold 1 of 2: " in found.report and len(found.test.class_names) == 2


@pytest.mark.parametrize(
    "count, fold, message",
    [(1, 0, "found 1 and 0"), (2, 2, "found 2 and 2"), (4, 1, "in 4 folds. Set dataset.folds")],
)
def test_folds_that_cannot_be(count, fold, message):
    with pytest.raises(datasets.DataError, match=message):
        datasets.load({"name": "digits", "folds": count, "fold": fold})
