"""A net of several branches, global and by horizontal stripes, for re-identification."""

import keras
import tensorflow as tf

from circle_tf.backbones import applications
from circle_tf.utils import checks

__all__ = ["StripePooling", "multi_granularity"]

_STRIPES = (1, 2, 3)  # Of the three branches.
_SHARED = "conv4_block1_out"
_PART_FEATURES = 256


@keras.saving.register_keras_serializable("circle_tf")
class StripePooling(keras.layers.Layer):
    """Maxima over horizontal stripes of feature maps.

    Args:
        stripes: int of 1 or more, how many of about equal height.
        **kwargs: `name`, `dtype`.

    Call arguments:
        maps: `[B, H, W, F]` of static height, H of `stripes` or more.

    Returns:
        `[B, stripes, F]`, from top to bottom.

    Raises:
        ValueError: fewer rows than stripes.

    Example:
        >>> maps = tf.reshape(tf.range(6.0), [1, 3, 2, 1])
        >>> StripePooling(3)(maps).numpy()[0, :, 0].tolist()
        [1.0, 3.0, 5.0]
    """

    def __init__(self, stripes, **kwargs):
        super().__init__(**kwargs)
        self.stripes = checks.whole_number(stripes, "stripes", least=1)

    def call(self, maps):
        """`[B, stripes, F]` of `[B, H, W, F]`."""
        edges = self._edges(maps.shape[1])
        parts = [maps[:, start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
        return tf.stack([tf.reduce_max(part, axis=(1, 2)) for part in parts], axis=1)

    def compute_output_shape(self, input_shape):
        """`(B, stripes, F)`."""
        self._edges(input_shape[1])
        return (input_shape[0], self.stripes, input_shape[3])

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "stripes": self.stripes}

    def _edges(self, height):
        if height is None or height < self.stripes:
            raise ValueError(
                f"{self.stripes} stripes want maps of as many rows or more; found {height}: use "
                "larger images."
            )
        return [height * number // self.stripes for number in range(self.stripes + 1)]


def multi_granularity(inputs, *, weights=None, partial=False):
    """Features of a ResNet50 with three ends: one global, one in two stripes, one in three.

    The branches share the net up to its fourth stage's first block and go on in copies; those with
    stripes keep the fifth stage's resolution. Each whole and each stripe becomes 256 features.

    Args:
        inputs: Keras tensor `[B, H, W, 3]`, pixels in 0..255.
        weights: path of a file with the weights of ResNet50 without its top, `imagenet` or None.
        partial: whether the file may hold a part of them.

    Returns:
        Keras tensor `[B, 2048]`: eight times 256 features.

    Raises:
        ValueError: images too small for three stripes, or not in colour.

    Example:
        >>> multi_granularity(keras.Input((64, 32, 3))).shape
        (None, 2048)

    References:
        Wang et al., "Learning Discriminative Features with Multiple Granularities", 2018.
    """
    if inputs.shape[-1] != 3:
        raise ValueError(f"The net wants colour images [H, W, 3]; found {tuple(inputs.shape[1:])}.")
    net = applications.net("ResNet50", tuple(inputs.shape[1:]), weights=weights, partial=partial)
    shared = keras.Model(net.input, net.get_layer(_SHARED).output, name="shared")
    maps = shared(keras.applications.resnet.preprocess_input(inputs))
    return keras.layers.Concatenate(name="features")(
        [part for stripes in _STRIPES for part in _branch(net, maps, stripes=stripes)]
    )


def _branch(net, maps, *, stripes):
    """The features `[B, 256]` of a branch's whole and, if there are several, of its stripes."""
    end = keras.Model(net.get_layer(_SHARED).output, net.output)

    def cloned(layer):
        config = layer.get_config()
        if stripes > 1 and layer.name in ("conv5_block1_0_conv", "conv5_block1_1_conv"):
            config["strides"] = (1, 1)
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(end, clone_function=cloned)
    copy.set_weights(end.get_weights())
    copy = keras.Model(copy.input, copy.output, name=f"branch_{stripes}")
    branch = copy(maps)
    pooled = [keras.layers.GlobalMaxPooling2D()(branch)]
    if stripes > 1:
        rows = StripePooling(stripes)(branch)
        pooled += [rows[:, number] for number in range(stripes)]
    return [_reduced(part) for part in pooled]


def _reduced(features):
    # Batch norm subtracts the mean: a bias before it would do nothing.
    reduced = keras.layers.Dense(_PART_FEATURES, use_bias=False)(features)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(reduced))
