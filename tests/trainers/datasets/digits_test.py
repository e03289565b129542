import numpy as np
import pytest

from trainers.datasets import digits


@pytest.fixture(scope="module")
def dataset():
    return digits.load({})


def test_first_five_digits_train_and_the_others_are_unseen(dataset):
    assert dataset.train.class_names == ("0", "1", "2", "3", "4")
    assert dataset.test.class_names == ("5", "6", "7", "8", "9")
    assert len(dataset.train) + len(dataset.test) == 1797
    assert set(dataset.train.labels) == set(dataset.test.labels) == set(range(5))
    assert dataset.queries is None and dataset.gallery is None


def test_scans_use_the_full_range_of_uint8(dataset):
    assert dataset.train.examples.dtype == np.uint8
    assert dataset.train.examples.shape[1:] == dataset.image_shape == (8, 8, 1)
    assert dataset.train.examples.min() == 0 and dataset.train.examples.max() == 255


def test_labels_belong_to_the_scans(dataset):
    from sklearn import datasets

    scans = datasets.load_digits()
    first_three = np.flatnonzero(scans.target == 3)[0]
    expected = np.rint(scans.images[first_three] * 255 / 16)
    row = np.flatnonzero(dataset.train.labels == 3)[0]
    np.testing.assert_array_equal(dataset.train.examples[row, :, :, 0], expected)


def test_size_and_channels_follow_the_config():
    dataset = digits.load({"image_size": 20, "channels": 3})
    images = dataset.test.images([0, 1])
    assert images.shape == (2, *dataset.image_shape) == (2, 20, 20, 3)
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
