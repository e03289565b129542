"""Tables of positions at another size: Pillow's bicubic resizing is the oracle."""

import keras
import numpy as np
import PIL.Image
import pytest

from circle_tf.backbones import positions
from tests import stacks

pytestmark = stacks.needs_keras_3


class Patches(keras.layers.Layer):
    """A layer of patches as KerasHub has them, with some tokens before them."""

    def __init__(self, image_size, special, **kwargs):
        super().__init__(**kwargs)
        self.image_size, self.patch_size = image_size, (8, 8)
        rows = image_size[0] // 8 * (image_size[1] // 8) + special
        self.table = self.add_weight((1, rows, 3), "normal", name="position_embedding")


def resized(maps, wanted):
    """`[h, w, F]` maps by Pillow, which smooths where it shrinks."""
    planes = [
        PIL.Image.fromarray(maps[..., n]).resize(wanted[::-1], PIL.Image.BICUBIC)
        for n in range(maps.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


@pytest.mark.parametrize("special", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 64), (16, 24), (48, 40)])
def test_embeddings_are_interpolated_over_the_grid(special, size):
    there, here = Patches((40, 48), special), Patches(size, special)
    assert positions.depends_on_size(there.table)
    found = positions.fitted(here.table, here, there.table, there)
    assert found.shape == tuple(here.table.shape)
    values = np.asarray(there.table)[0]
    np.testing.assert_array_equal(found[0, :special], values[:special])
    expected = resized(values[special:].reshape(5, 6, 3), (size[0] // 8, size[1] // 8))
    np.testing.assert_allclose(found[0, special:], expected.reshape(-1, 3), atol=1e-5)


def test_embeddings_of_the_same_size_are_the_same():
    there, here = Patches((40, 48), 1), Patches((40, 48), 1)
    found = positions.fitted(here.table, here, there.table, there)
    np.testing.assert_array_equal(found, there.table)


def test_a_table_over_an_unknown_grid_is_refused():
    there, here = Patches((40, 48), 1), Patches((16, 24), 1)
    del there.image_size
    with pytest.raises(ValueError, match="over a grid that is not known"):
        positions.fitted(here.table, here, there.table, there)
