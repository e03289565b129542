"""Tables of positions, learnt for one size of images and used for another."""

import math

import keras
import numpy as np

__all__ = ["depends_on_size", "fitted"]

_TABLES = (
    "interpolated_position_embeddings",
    "position_embedding",
    "position_embeddings",
)
_NUMBERS = "position_ids"


def depends_on_size(weight):
    """Whether the shape of a layer's weight follows the images' size.

    Args:
        weight: Keras variable.

    Returns:
        bool.
    """
    return any(part in (*_TABLES, _NUMBERS) for part in weight.path.split("/")[-2:])


def fitted(weight, layer, other_weight, other):
    """The values of another layer's weight, for a layer that sees images of another size.

    Embeddings of positions are interpolated over the grid of patches (bicubic, with anti-aliasing
    where the grid shrinks); those of special tokens stay as they are.

    Args:
        weight: Keras variable of `layer`.
        layer: `keras.layers.Layer`.
        other_weight: the variable of `other` in its place.
        other: the same layer, of images of any size.

    Returns:
        NumPy array of the shape of `weight`.

    Raises:
        ValueError: a table that is not over a known grid.
    """
    values = np.asarray(other_weight)
    if weight.name == _NUMBERS:
        return np.arange(weight.shape[-1])[None]
    if weight.name == _TABLES[0]:  # DINOv2 computes it anew, like this, from what it has saved.
        values, shape = np.asarray(other.position_embeddings), layer.position_embedding_shape
        grids = [[side // layer.patch_size for side in size] for size in (shape, layer.image_shape)]
        antialias = layer.antialias_in_interpolation
        return _interpolated(values, *grids, antialias=antialias).reshape(weight.shape)
    sizes = {_pair(getattr(each, "image_size", None)) for each in (layer, other)}
    if values.shape == tuple(weight.shape) and len(sizes) == 1:
        return values
    grids = [_grid(other, values.shape), _grid(layer, weight.shape)]
    return _interpolated(values, *grids).reshape(weight.shape)


def _interpolated(values, grid, wanted, *, antialias=True):
    """Embeddings `[.., tokens, F]` of patches, with special tokens before them, on another grid."""
    values = values.reshape(-1, values.shape[-1])
    special, patches = np.split(values, [len(values) - math.prod(grid)])
    if list(grid) != list(wanted):
        maps = patches.reshape(1, *grid, -1).astype(np.float32)
        patches = keras.ops.convert_to_numpy(
            keras.ops.image.resize(maps, wanted, interpolation="bicubic", antialias=antialias)
        ).reshape(math.prod(wanted), -1)
    return np.concatenate([special, patches])


def _grid(layer, shape):
    """Rows and columns of patches of the layer that embeds them."""
    size, patch = _pair(getattr(layer, "image_size", None)), _pair(getattr(layer, "patch_size", 0))
    if size is None or 0 in patch:
        raise ValueError(
            f"{layer.name} has position embeddings {list(shape)} over a grid that is not known: "
            "they fit images of the size that they were trained for only."
        )
    return [side // step for side, step in zip(size, patch, strict=True)]


def _pair(value):
    return (value, value) if isinstance(value, int) else value and tuple(value)
