import numpy as np
import pytest

from trainers.datasets import glyphs


@pytest.fixture(scope="module")
def dataset():
    return glyphs.load({})


@pytest.fixture(scope="module")
def classes():
    return glyphs.character_classes()


def test_common_letters_numbers_and_symbols_make_about_two_thousand_classes(classes):
    characters = [character for members in classes for character in members]
    assert len(characters) == len(set(characters)) == 2196  # all 2,197 but a blank one
    assert len(classes) == 1983


@pytest.mark.parametrize("same", ["AΑА", "²₂", "ΩΩ"])
def test_same_outline_is_one_class(classes, same):
    assert sum(set(same) <= set(members) for members in classes) == 1


@pytest.mark.parametrize("different", ["oO", "Il", "O0", "bd", "→←"])
def test_different_outlines_are_different_classes(classes, different):
    assert not any(set(different) <= set(members) for members in classes)


def test_trains_on_half_of_the_characters_and_not_on_the_query_faces(dataset):
    assert not set(dataset.train.class_names) & set(dataset.test.class_names)
    assert len(dataset.train.class_names) == 991
    assert len(dataset.test.class_names) == 992
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), 10)
    np.testing.assert_array_equal(np.bincount(dataset.test.labels), 12)


def test_queries_and_gallery_are_the_unseen_characters_in_their_faces(dataset):
    by_class = dataset.test.examples.reshape(992, 12, 32, 32, 1)
    np.testing.assert_array_equal(dataset.gallery.examples, by_class[:, 0])
    np.testing.assert_array_equal(dataset.gallery.labels, np.arange(992))
    rows = [glyphs.FACES.index(face) for face in glyphs.QUERY_FACES]
    np.testing.assert_array_equal(
        dataset.queries.examples.reshape(992, 2, 32, 32, 1), by_class[:, rows]
    )
    assert glyphs.GALLERY_FACE not in glyphs.QUERY_FACES


def test_pictures_are_uint8_centred_and_filled(dataset):
    images = dataset.test.images().astype(np.float64)
    assert dataset.test.images().dtype == np.uint8
    assert images.shape[1:] == dataset.image_shape == (32, 32, 1)
    assert images.max(axis=(1, 2, 3)).min() > 100
    inked = images[..., 0] > 64
    for axis in (1, 2):  # the other axis of the picture is reduced away
        line = inked.any(axis=axis)
        first, last = line.argmax(axis=1), 31 - line[:, ::-1].argmax(axis=1)
        assert np.abs((first + last) / 2 - 15.5).max() <= 4  # shift 2, rotation, rounding
    assert np.median(inked.any(axis=1).sum(axis=1)) > 10


def test_no_two_characters_share_a_picture_in_a_face():
    names = [members[0] for members in glyphs.character_classes()][:200]
    images = glyphs.render(names, image_size=32, seed=0)
    assert len({image.tobytes() for image in images.reshape(-1, 1024)}) == 200 * 12


def test_rendering_depends_on_the_seed_alone():
    first, again, other = (glyphs.render("aß", image_size=32, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_size_and_channels_follow_the_config():
    images = glyphs.render("a", image_size=48, seed=0)
    assert images.shape == (1, 12, 48, 48, 1)


def test_larger_size_is_the_same_picture_in_more_detail():
    small = glyphs.render("aß", image_size=32, seed=0).astype(float)
    large = glyphs.render("aß", image_size=64, seed=0).astype(float)
    halved = large.reshape(2, 12, 32, 2, 32, 2, 1).mean(axis=(3, 5))
    assert np.corrcoef(small.ravel(), halved.ravel())[0, 1] > 0.97
