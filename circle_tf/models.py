"""`EmbeddingModel`: the Keras model whose compile and fit suit in-batch losses."""

import keras
import tensorflow as tf

from circle_tf import compat, replicas

__all__ = ["EmbeddingModel"]


@keras.saving.register_keras_serializable("circle_tf")
class EmbeddingModel(keras.Model):
    """A `keras.Model` for embeddings: same constructor, `compile`, `fit`, callbacks and saving.

    Different from `keras.Model`: `jit_compile="auto"` takes the faster choice for the device (XLA
    on GPU and TPU; off on CPU, where XLA's convolutions are slower), and a strategy with several
    replicas is refused rather than trained on pairs that silently stay within a replica.

    Args:
        inputs: Keras inputs, usually raw pixels `[B, H, W, C]`.
        outputs: Keras outputs, usually unit embeddings `[B, D]` or cosines `[B, C]`.
        name: str.

    Raises:
        NotImplementedError: created or compiled under a strategy with more than one replica, or
            on the stack of TensorFlow Addons.

    Example:
        >>> from circle_tf import CircleLoss, UnitEmbedding
        >>> pixels = keras.Input((8, 8, 1))
        >>> model = EmbeddingModel(pixels, UnitEmbedding(4)(keras.layers.Flatten()(pixels)))
        >>> model.compile(optimizer="adam", loss=CircleLoss())
        >>> model.predict(tf.zeros([2, 8, 8, 1]), verbose=0).shape
        (2, 4)
    """

    def __init__(self, *args, **kwargs):
        compat.require_keras_3("EmbeddingModel")
        super().__init__(*args, **kwargs)

    def compile(self, *args, jit_compile="auto", **kwargs):
        """As `keras.Model.compile`.

        Args:
            *args: as `keras.Model.compile`.
            jit_compile: True, False, or "auto" for the faster choice on the device at hand.
            **kwargs: as `keras.Model.compile`.
        """
        replicas.check_strategy(self.distribute_strategy)
        self._asked_jit = jit_compile
        if jit_compile == "auto" and not _has_accelerator():
            jit_compile = False
        super().compile(*args, jit_compile=jit_compile, **kwargs)

    def get_compile_config(self):
        """What `compile` was called with; "auto" stays "auto", for the next machine to decide."""
        config = super().get_compile_config()
        return {**config, "jit_compile": self._asked_jit} if config else config

    def compile_from_config(self, config):
        """Compiles as saved; Keras does this itself only for models without their own compile."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)


def _has_accelerator():
    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
