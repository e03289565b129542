"""Keras layers that end an embedding model: unit embeddings, cosines to classes, pair losses."""

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import collectives, sharded_variable
from circle_tf.layers import initializers
from circle_tf.losses import base, circle, circle_losses
from circle_tf.losses.streaming import pair_sweep
from circle_tf.ops import numerics
from circle_tf.utils import checks

__all__ = ["CosineClassifier", "PairwiseCircle", "UnitEmbedding"]


@keras.saving.register_keras_serializable("circle_tf")
class UnitEmbedding(keras.layers.Layer):
    """Projects features to unit embeddings, float32 under any precision policy.

    `y = normalize(features @ kernel + bias)`. The product runs in the layer's compute dtype, the
    normalisation and the output in float32 (float64 under a float64 policy).

    Args:
        dim: int D above 0, embedding dimension.
        use_bias: whether to add a bias before normalising.
        kernel_initializer: Keras initializer of the kernel.
        kernel_regularizer: Keras regularizer of the kernel.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        features: `[B, F]` features; maps `[B, H, W, F]` are a shape error (pool them first).

    Returns:
        `[B, D]` rows of length 1; a zero row stays zero.

    Raises:
        ValueError: `dim` not a positive integer, input of another rank.

    Example:
        >>> rows = UnitEmbedding(8)(tf.ones([2, 5]))
        >>> tf.norm(rows, axis=1).numpy().round(4).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        dim,
        *,
        use_bias=True,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dim = checks.whole_number(dim, "dim", least=1)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        """Makes the kernel `[F, D]`."""
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"UnitEmbedding wants features of shape [B, F]; found {tuple(input_shape)}. Pool "
                "or flatten feature maps first (keras.layers.GlobalAveragePooling2D)."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], self.dim),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.dim,), initializer="zeros")
        self.built = True  # Keras 2 builds again on the first call otherwise.

    def call(self, features):
        """Unit embeddings of `[B, F]` features."""
        projected = tf.matmul(features, self.kernel)
        if self.bias is not None:
            projected += tf.convert_to_tensor(self.bias, projected.dtype)
        return numerics.safe_normalize(projected)

    def compute_output_spec(self, features):
        """`[B, D]` in the loss dtype, whatever the compute dtype."""
        return compat.output_spec((features.shape[0], self.dim), loss_dtype(self))

    def get_config(self):
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "dim": self.dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable("circle_tf")
class CosineClassifier(keras.layers.Layer):
    """Cosines between embeddings and one learnt weight vector per class.

    `cosines = normalize(embeddings) @ normalize(weights).T`, in float32 under any policy.

    Args:
        num_classes: int C of 2 or more.
        **kwargs: `name`, `dtype`, `trainable`.

    Call arguments:
        embeddings: `[B, D]` of any scale.

    Returns:
        `[B, C]` cosines in -1..1, float32 (float64 for float64 input).

    Raises:
        ValueError: `num_classes` below 2, input of another rank.

    Example:
        >>> CosineClassifier(10)(tf.ones([2, 4])).shape.as_list()
        [2, 10]
    """

    def __init__(self, num_classes, **kwargs):
        kwargs["autocast"] = False  # The float32 embeddings must not be rounded to half.
        super().__init__(**kwargs)
        self.num_classes = check_num_classes(num_classes)

    def build(self, input_shape):
        """Makes the class weights `[C, D]`."""
        self.class_weights = add_class_weights(self, input_shape, self.num_classes)
        self.built = True

    def call(self, embeddings):
        """Cosines of `[B, D]` embeddings to the classes."""
        return cosines_to(embeddings, self.class_weights)

    def compute_output_spec(self, embeddings):
        """`[B, C]` in the loss dtype."""
        shape = (embeddings.shape[0], self.num_classes)
        return compat.output_spec(shape, loss_dtype(self))

    def get_config(self):
        """The constructor's arguments."""
        return _without_autocast({**super().get_config(), "num_classes": self.num_classes})


class LossLayer(keras.layers.Layer):
    """A layer from (embeddings, ids) to per-example losses; base of both kinds of labels.

    Args:
        margin: float m.
        gamma: float scale.
        reduction: how losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: whether to add the reduced loss to the model's losses when called.
        detach_weights: see `circle_loss`.
        **kwargs: `name`, `dtype`.
    """

    def __init__(self, margin, gamma, *, reduction, as_model_loss, detach_weights, **kwargs):
        circle.check_hyperparameters(margin=margin, gamma=gamma)
        base.check_reduction(reduction)
        if as_model_loss and reduction == "none":
            raise ValueError("as_model_loss=True wants a reduction to one number; found 'none'.")
        kwargs["autocast"] = False
        super().__init__(**kwargs)
        self.margin, self.gamma, self.reduction = float(margin), float(gamma), reduction
        self.as_model_loss, self.detach_weights = as_model_loss, detach_weights

    def call(self, inputs):
        """Per-example losses `[B]` of a pair (embeddings, ids)."""
        embeddings, ids = inputs
        values, valid = self.losses_of(embeddings, ids)
        self.add_model_loss(values, valid)
        return values

    def add_model_loss(self, values, valid):
        """Adds the reduced losses to the model's, if `as_model_loss`."""
        if self.as_model_loss:
            loss = base.reduce_losses(values, valid, reduction=self.reduction)
            # Keras divides the losses that layers add by the number of replicas.
            self.add_loss(loss * collectives.num_replicas())

    def losses_of(self, embeddings, ids):
        """`(losses [B], valid [B])`; what a subclass adds."""
        raise NotImplementedError

    @property
    def crosses_replicas(self):
        """Whether a call exchanges something between replicas (XLA cannot compile that)."""
        return self.as_model_loss

    def hyperparameters(self):
        """margin, gamma and detach_weights, as the loss functions take them."""
        return {
            "margin": self.margin,
            "gamma": self.gamma,
            "detach_weights": self.detach_weights,
        }

    def compute_output_spec(self, inputs):
        """`[B]` in the loss dtype."""
        return compat.output_spec((inputs[0].shape[0],), loss_dtype(self))

    def get_config(self):
        """The constructor's arguments."""
        own = {"reduction": self.reduction, "as_model_loss": self.as_model_loss}
        return _without_autocast({**super().get_config(), **self.hyperparameters(), **own})


@keras.saving.register_keras_serializable("circle_tf")
class PairwiseCircle(LossLayer):
    """Pair-wise Circle loss as a layer, for models with several outputs and for custom loops.

    Args:
        margin: float m in -1..1.
        gamma: float scale above 0.
        reduction: how the losses become the model loss; see `circle_tf.losses.base.reduce_losses`.
        as_model_loss: add the reduced loss to the model's losses, so that `compile` needs none.
        detach_weights: see `circle_loss`.
        block_size: see `CircleLoss`.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: `(embeddings [B, D], ids [B] or [B, 1])`.

    Returns:
        `[B]` losses in nats, those of `CircleLoss(reduction="none")`.

    Raises:
        ValueError, TypeError: hyper-parameters, shapes or label dtypes out of range.

    Example:
        >>> embeddings = tf.constant([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> PairwiseCircle()((embeddings, tf.constant([0, 0, 1]))).shape.as_list()
        [3]

    References:
        Sun et al., "Circle Loss", CVPR 2020.
    """

    def __init__(
        self,
        margin=0.4,
        gamma=80.0,
        *,
        reduction="mean_valid",
        as_model_loss=False,
        detach_weights=True,
        block_size="auto",
        **kwargs,
    ):
        super().__init__(
            margin,
            gamma,
            reduction=reduction,
            as_model_loss=as_model_loss,
            detach_weights=detach_weights,
            **kwargs,
        )
        self.block_size = pair_sweep.check_block_size(block_size)

    def losses_of(self, embeddings, ids):
        """`(losses [B], valid [B])` within the global batch."""
        return circle_losses.pairwise_losses(
            embeddings, ids, block_size=self.block_size, **self.hyperparameters()
        )

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "block_size": self.block_size}

    @property
    def crosses_replicas(self):
        """True: the keys are all replicas' embeddings."""
        return True


def add_class_weights(layer, input_shape, num_classes, *, sharded=False):
    """The class weights `[C, D]` of a layer whose input is embeddings of `input_shape`.

    Args:
        layer: the Keras layer that gets them.
        input_shape: `(B, D)`.
        num_classes: int C.
        sharded: whether each replica holds its own share of the rows.

    Returns:
        Keras variable `[C, D]`: normal rows, so that directions are uniform.

    Raises:
        ValueError: input of another rank.
    """
    if len(input_shape) != 2 or input_shape[-1] is None:
        raise ValueError(
            f"{type(layer).__name__} wants embeddings of shape [B, D]; found {tuple(input_shape)}."
        )
    shape = (num_classes, input_shape[-1])
    normal = initializers.NormalRows(input_shape[-1])
    if not sharded:
        return compat.add_exact_weight(layer, name="class_weights", shape=shape, initializer=normal)
    layer.class_weights = sharded_variable.ShardedVariable(
        normal, shape, dtype=layer.variable_dtype, autocast=False, name="class_weights"
    )
    layer.class_weights.trainable = layer.trainable  # `add_weight` does it, an assignment does not.
    return layer.class_weights


def cosines_to(embeddings, class_weights):
    """`normalize(embeddings) @ normalize(class_weights).T`.

    Args:
        embeddings: `[B, D]`.
        class_weights: `[C, D]` tensor or Keras variable.

    Returns:
        `[B, C]` cosines, float32 (float64 for float64 embeddings).
    """
    unit = numerics.safe_normalize(embeddings)
    weights = numerics.safe_normalize(tf.cast(tf.convert_to_tensor(class_weights), unit.dtype))
    return tf.matmul(unit, weights, transpose_b=True)


def check_num_classes(value):
    """Int C of 2 or more, or ValueError."""
    return checks.whole_number(value, "num_classes", least=2)


def loss_dtype(layer):
    """float64 for a layer of that policy, else float32: str."""
    return "float64" if layer.dtype_policy.variable_dtype == "float64" else "float32"


def _without_autocast(config):
    config.pop("autocast", None)
    return config
