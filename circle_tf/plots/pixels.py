"""Images of a data set as pictures for people: 8-bit colour, side by side."""

import math

import numpy as np

__all__ = ["as_rgb", "tile"]


def as_rgb(images):
    """Any images as 8-bit colour.

    Args:
        images: `[..., H, W, C]`, C of 1 (grey), 3 (colour) or 4 (alpha is dropped). uint8, or other
            numbers from 0 to 255; floats that do not exceed 1 are taken as 0 to 1.

    Returns:
        `[..., H, W, 3]` uint8.

    Raises:
        ValueError: another number of channels or dimensions.

    Example:
        >>> as_rgb(np.full([1, 1, 1], 0.5)).tolist()
        [[[128, 128, 128]]]
    """
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[-1] not in (1, 3, 4):
        raise ValueError(
            "Images must have shape [..., H, W, C] with 1, 3 or 4 channels; "
            f"found shape {list(images.shape)}."
        )
    if images.dtype != np.uint8:
        is_float = np.issubdtype(images.dtype, np.floating)
        scale = 255 if is_float and images.size and np.nanmax(images) <= 1 else 1
        images = np.rint(np.clip(np.nan_to_num(images * scale), 0, 255)).astype(np.uint8)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]


def tile(images):
    """Images side by side, row by row, in as many rows as columns.

    TensorBoard finds the picture of a row by its number, as in a square of them.

    Args:
        images: `[N, H, W, C]` uint8.

    Returns:
        `[columns * H, columns * W, C]` uint8; places left over are 0.

    Example:
        >>> tile(np.ones([5, 1, 1, 1], np.uint8))[..., 0].tolist()
        [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    """
    count, height, width, channels = images.shape
    columns = max(1, math.ceil(math.sqrt(count)))
    grid = np.zeros([columns**2, height, width, channels], images.dtype)
    grid[:count] = images
    grid = grid.reshape(columns, columns, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(columns * height, columns * width, channels)
