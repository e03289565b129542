"""The shape of images that a recipe asks for."""

from trainers.datasets import base

__all__ = ["image_shape", "square_shape"]

_MOST = 16_384  # pixels


def image_shape(config, *, size=112, channels=3):
    """The shape that a recipe asks for.

    Args:
        config: `image_size`, in pixels the side of a square, or the height where `image_width` is
            above 0; `channels`, 1 for grey, 3 for colour.
        size: `image_size` where the recipe has none.
        channels: where the recipe has none.

    Returns:
        `(H, W, C)`.

    Raises:
        base.DataError: a side below 1 or above 16,384, other channels than 1 or 3.

    Example:
        >>> image_shape({"image_size": 256, "image_width": 128})
        (256, 128, 3)
    """
    height = config.get("image_size", size)
    width = config.get("image_width", 0) or height
    if min(height, width) < 1 or max(height, width) > _MOST:
        raise base.DataError(
            f"Expected dataset.image_size of 1 to {_MOST:,}, and dataset.image_width of 0 (a "
            f"square) to that; found {height} and {width}."
        )
    channels = config.get("channels", channels)
    if channels not in (1, 3):
        raise base.DataError(
            f"Expected dataset.channels of 1 (grey) or 3 (colour); found {channels}."
        )
    return height, width, channels


def square_shape(config, *, size, channels=1):
    """The shape that a recipe asks for, of a data set whose pictures are square.

    Args:
        config: as of `image_shape`.
        size: as of `image_shape`.
        channels: as of `image_shape`.

    Returns:
        `(H, H, C)`.

    Raises:
        base.DataError: `image_width` is another one than the height.

    Example:
        >>> square_shape({}, size=8)
        (8, 8, 1)
    """
    height, width, channels = image_shape(config, size=size, channels=channels)
    if height != width:
        raise base.DataError(
            f"{config.get('name', 'This data set')} is of square pictures: leave "
            f"dataset.image_width 0; found {height} x {width}."
        )
    return height, width, channels
