"""Whether a model's outputs are what its losses take, where that can be known."""

import warnings

from circle_tf.layers import cosine_classifier, unit_embedding

__all__ = ["check_losses"]

_FOREIGN = {  # What a loss takes: the layer that gives something else, and what is to be said.
    "cosines": (
        unit_embedding.UnitEmbedding,
        "{loss} takes cosines to the classes, [B, C], but the output {layer!r} is unit embeddings: "
        "each of their {width} numbers would be a class. Put CosineClassifier(num_classes) on it, "
        "or train it by a loss on embeddings (CircleLoss).",
    ),
    "embeddings": (
        cosine_classifier.CosineClassifier,
        "{loss} takes embeddings, [B, D], but the output {layer!r} is cosines to {width} classes. "
        "Make the embeddings before it the output, or train it by a loss on cosines "
        "(ClassCircleLoss).",
    ),
}


def check_losses(model):
    """Warns of class-level losses on embeddings, and of losses on embeddings on cosines.

    Known are outputs that come right out of a `UnitEmbedding` or a `CosineClassifier`.

    Args:
        model: compiled functional keras.Model; of others nothing is known.

    Warns:
        UserWarning: such a loss.

    Example:
        >>> import keras
        >>> from circle_tf import CircleLoss, UnitEmbedding
        >>> pixels = keras.Input((8,))
        >>> model = keras.Model(pixels, UnitEmbedding(4)(pixels))
        >>> model.compile(loss=CircleLoss())
        >>> check_losses(model)  # It takes what the model gives.
    """
    for loss, output in _pairs(model):
        layer_class, message = _FOREIGN.get(getattr(loss, "takes", None), (None, None))
        layer = layer_class and _layer_of(model, output)
        if layer and isinstance(layer, layer_class):
            words = {"loss": type(loss).__name__, "layer": layer.name, "width": output.shape[-1]}
            warnings.warn(message.format(**words), stacklevel=3)


def _pairs(model):
    """(loss, output) of each output whose loss is plain to see."""
    outputs, loss = getattr(model, "outputs", None) or [], model.loss
    if isinstance(loss, dict) and isinstance(model.output, dict):
        return [(loss.get(name), output) for name, output in model.output.items()]
    losses = loss if isinstance(loss, (list, tuple)) else [loss]
    return zip(losses, outputs, strict=True) if len(losses) == len(outputs) else []


def _layer_of(model, output):
    """The layer that gives an output; None if it is called several times."""
    for layer in model.layers:
        try:
            if layer.output is output:
                return layer
        except (AttributeError, ValueError):
            continue
    return None
