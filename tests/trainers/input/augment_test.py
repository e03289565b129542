import numpy as np
import pytest
import tensorflow as tf

from configs import base
from trainers.input import augment

AMOUNTS = {
    "rotation": 30.0,
    "translation": 0.2,
    "zoom": 0.3,
    "shear": 0.3,
    "flip": "horizontal_and_vertical",
    "brightness": 0.3,
    "contrast": 0.5,
    "saturation": 0.5,
    "hue": 0.5,
    "bend": 0.1,
    "thicken": 1.5,
    "cutout": 0.5,
}
SEED, OTHER_SEED = tf.constant([3, 4]), tf.constant([3, 5])


def photos(dtype=np.uint8):
    """Eight times the same coloured image, [8, 16, 16, 3]."""
    image = np.random.default_rng(0).integers(40, 200, (1, 16, 16, 3))
    return tf.constant(np.repeat(image, 8, axis=0).astype(dtype))


def test_the_recipe_has_every_kind():
    assert set(base.get_config().augment) == {*AMOUNTS, "fill_value"}


def test_nothing_to_do_is_none():
    assert augment.augmenter(base.get_config().augment) is None


@pytest.mark.parametrize("kind", AMOUNTS)
def test_each_kind_is_a_pure_function_of_the_seed(kind):
    function = augment.augmenter({kind: AMOUNTS[kind]})
    first = function(photos(), SEED).numpy()
    tf.random.set_seed(99)
    function(photos(), OTHER_SEED)  # Leaves nothing behind that the next call could see.
    np.testing.assert_array_equal(function(photos(), SEED), first)
    again = augment.augmenter({kind: AMOUNTS[kind]})
    np.testing.assert_array_equal(again(photos(), SEED), first)
    assert (function(photos(), OTHER_SEED).numpy() != first).any()


@pytest.mark.parametrize("kind", AMOUNTS)
def test_graph_equals_eager_and_holds_no_state(kind):
    function = augment.augmenter({kind: AMOUNTS[kind]})
    graph = tf.function(function).get_concrete_function(photos(), SEED)
    stateful = [op.type for op in graph.graph.get_operations() if op.op_def.is_stateful]
    assert not [kind for kind in stateful if kind not in ("Assert", "Placeholder")]
    eager = function(photos(), SEED).numpy().astype(int)
    assert abs(graph(photos(), SEED).numpy().astype(int) - eager).max() <= 1


@pytest.mark.parametrize("kind", AMOUNTS)
def test_images_of_a_batch_change_each_in_its_own_way(kind):
    images = augment.augmenter({kind: AMOUNTS[kind]})(photos(), SEED).numpy()
    assert len({image.tobytes() for image in images}) > 2


def test_kinds_draw_independently():
    """Translation alone and after a flip of nothing shifts differently: seeds are not shared."""
    both = augment.augmenter({"brightness": 0.3, "contrast": 0.3})
    images = np.full([64, 4, 4, 1], 100.0, np.float32)
    images[:, ::2] = 140.0
    changed = both(tf.constant(images), SEED).numpy()
    brightness = changed.mean(axis=(1, 2, 3)) - 120
    contrast = changed.max(axis=(1, 2, 3)) - changed.min(axis=(1, 2, 3))
    assert abs(np.corrcoef(brightness, contrast)[0, 1]) < 0.4


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_dtype_shape_and_range_stay(dtype):
    function = augment.augmenter(AMOUNTS)
    images = function(photos(dtype), SEED)
    assert images.dtype == dtype and images.shape == photos().shape
    assert images.numpy().min() >= 0 and images.numpy().max() <= 255


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_precision_policy_does_not_reach_pixels(policy, monkeypatch):
    import keras

    before = augment.augmenter({"rotation": 30.0})(photos(), SEED)
    keras.config.set_dtype_policy(policy)
    try:
        after = augment.augmenter({"rotation": 30.0})(photos(), SEED)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(after, before)


def test_grey_images_and_fill_value():
    images = tf.fill([16, 8, 8, 1], tf.constant(50, tf.uint8))
    changed = augment.augmenter({"translation": 0.5, "fill_value": 255.0})(images, SEED).numpy()
    assert set(np.unique(changed)) >= {50, 255}


def test_rotation_is_within_its_degrees():
    """A bright dot at the right edge stays within the angle, seen from the centre."""
    images = np.zeros([200, 33, 33, 1], np.float32)
    images[:, 16, 30] = 255
    turned = augment.augmenter({"rotation": 20.0})(tf.constant(images), SEED).numpy()[..., 0]
    rows, columns = np.mgrid[:33, :33] - 16
    mass = turned.sum(axis=(1, 2))
    angles = np.degrees(
        np.arctan2(
            (turned * rows).sum(axis=(1, 2)) / mass, (turned * columns).sum(axis=(1, 2)) / mass
        )
    )
    assert 15 < abs(angles).max() < 22
    assert angles.min() < -10 and angles.max() > 10


def test_works_in_a_dataset_map():
    function = augment.augmenter({"rotation": 30.0, "flip": "horizontal"})
    seeds = tf.data.Dataset.range(4).map(lambda step: tf.stack([tf.cast(step, tf.int32), 7]))
    mapped = seeds.map(lambda seed: function(photos(), seed), num_parallel_calls=4)
    for seed, images in zip(seeds, mapped, strict=True):
        expected = function(photos(), seed).numpy().astype(int)
        assert abs(images.numpy().astype(int) - expected).max() <= 1
