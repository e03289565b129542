"""keras-cv's augmentation layers, and our own, as one pure function of (images, seed).

keras-cv draws random numbers from a stateful generator, so that a resumed run would see other
images than an uninterrupted one. Here the layers draw from the seed of the step instead.
"""

import functools

import tensorflow as tf

from circle_tf import backbones
from trainers.input import strokes

__all__ = ["augmenter"]

_FIELDS = (
    "rotation",
    "translation",
    "zoom",
    "shear",
    "flip",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "bend",
    "thicken",
    "cutout",
)
_OWN = {"bend", "thicken"}


def augmenter(config):
    """The augmentation that a config section describes.

    Args:
        config: mapping with the fields of `augment` in configs/base.py.

    Returns:
        `fn(images, seed) -> images` in TensorFlow operations, or None when nothing is to be
        changed. images: `[B, H, W, C]` in 0..255, uint8 or float; seed: int32 `[2]`. The result
        has the dtype of the input, is rounded for uint8, and depends on the arguments alone.

    Raises:
        ImportError: keras-cv is not installed.
        ValueError: an amount is out of keras-cv's range for the layer.

    Example:
        >>> augment = augmenter({"flip": "horizontal"})
        >>> images = tf.zeros([2, 8, 8, 1], tf.uint8)
        >>> augment(images, tf.constant([0, 1])).dtype
        tf.uint8
    """
    layers = _layers({field: config.get(field, 0) for field in _FIELDS}, config)
    if not layers:
        return None
    draws = [_SeededDraws() for _ in layers]
    steps = [_step(layer, source) for layer, source in zip(layers, draws, strict=True)]

    def augment(images, seed):
        pixels = tf.cast(images, tf.float32)
        for position, (step, source) in enumerate(zip(steps, draws, strict=True)):
            source.start(tf.random.experimental.stateless_fold_in(seed, position))
            pixels = step(pixels)
        pixels = tf.clip_by_value(pixels, 0.0, 255.0)
        if images.dtype.is_integer:
            pixels = tf.round(pixels)
        return tf.ensure_shape(tf.cast(pixels, images.dtype), images.shape)

    return augment


class _SeededDraws:
    """Stands in for the `tf.random.Generator` of a keras-cv layer, and for its factor samplers.

    Each draw has the layer's seed and its own number, counted while the function is traced: the
    graph holds stateless operations only.
    """

    def start(self, seed):
        self._seed, self._count = seed, 0

    def uniform(self, shape, minval=0.0, maxval=1.0, dtype=tf.float32):
        self._count += 1
        seed = tf.random.experimental.stateless_fold_in(self._seed, self._count)
        return tf.random.stateless_uniform(shape, seed, minval, maxval, dtype)


def _step(layer, source):
    """`fn(pixels) -> pixels` of a keras-cv layer, or of a function of pixels and draws."""
    if isinstance(layer, functools.partial):
        return lambda pixels: layer(pixels, source)
    _feed(layer, source)
    return layer


def _feed(layer, source):
    """Makes `layer` draw from `source` alone."""
    factor_sampler = backbones.import_keras_cv().core.UniformFactorSampler

    class Sampler(factor_sampler):
        def __call__(self, shape=(), dtype="float32"):
            return source.uniform(shape, self.lower, self.upper, tf.as_dtype(dtype))

    layer._random_generator = source
    for name, value in list(vars(layer).items()):
        if isinstance(value, factor_sampler):
            setattr(layer, name, Sampler(value.lower, value.upper))


def _layers(amounts, config):
    """The layers whose amount is not 0, geometric ones first."""
    is_foreign = any(amount for field, amount in amounts.items() if field not in _OWN)
    layers = backbones.import_keras_cv().layers if is_foreign else None
    fill = {"fill_mode": "constant", "fill_value": config.get("fill_value", 0.0)}
    # The layers' own seed is never used; without one they look for a global generator.
    any_ = {"seed": 1, "dtype": "float32"}
    moving, pixel = {**fill, **any_}, {"value_range": (0, 255), **any_}
    makers = {
        "rotation": lambda degrees: layers.RandomRotation(degrees / 360, **moving),
        "translation": lambda share: layers.RandomTranslation(share, share, **moving),
        "zoom": lambda share: layers.RandomZoom(share, **moving),
        "shear": lambda share: layers.RandomShear(share, share, **moving),
        "flip": lambda mode: layers.RandomFlip(mode, **any_),
        "brightness": lambda share: layers.RandomBrightness(share, **pixel),
        "contrast": lambda share: layers.RandomContrast(factor=share, **pixel),
        "saturation": lambda share: layers.RandomSaturation(
            (0.5 - share / 2, 0.5 + share / 2), **any_
        ),
        "hue": lambda share: layers.RandomHue(share, **pixel),
        "bend": lambda share: functools.partial(
            strokes.bend, amount=share, fill_value=fill["fill_value"]
        ),
        "thicken": lambda pixels: functools.partial(strokes.thicken, amount=pixels),
        "cutout": lambda share: layers.RandomCutout(share, share, **fill, **any_),
    }
    return [makers[field](amount) for field, amount in amounts.items() if amount]
