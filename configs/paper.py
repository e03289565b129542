"""What the recipes of the paper's experiments share: a base for each kind of experiment.

Not a recipe itself. Settings the paper does not state are marked in the recipes' docstrings.
"""

from configs import base

__all__ = ["faces", "re_identification", "retrieval"]


def retrieval(name, *, steps):
    """Fine-grained retrieval, pair-wise labels.

    Args:
        name: of the data set.
        steps: int.

    Returns:
        ml_collections.ConfigDict.

    Example:
        >>> retrieval("cub200", steps=10).loss.margin
        0.4
    """
    config = _config(name, image_size=224, batch=(16, 5), every=1000, steps=steps)
    config.model.backbone = "bn_inception"
    config.loss.name, config.loss.margin, config.loss.gamma = "circle", 0.4, 80.0
    config.augment.translation = 0.1
    config.augment.zoom = 0.15
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.weight_decay = 1e-4
    config.optimizer.warmup_steps = 500
    return config


def re_identification(name, *, steps):
    """People by cameras, class-level labels.

    Args:
        name: of the data set.
        steps: int.

    Returns:
        ml_collections.ConfigDict.

    Example:
        >>> re_identification("market1501", steps=10).loss.gamma
        128.0
    """
    config = _config(name, image_size=256, batch=(16, 4), every=1000, steps=steps)
    config.dataset.image_width = 128
    config.model.backbone = "ResNet50"
    config.loss.name, config.loss.margin, config.loss.gamma = "class_circle", 0.25, 128.0
    config.augment.translation = 0.05
    config.augment.cutout = 0.3
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3.5e-4
    config.optimizer.weight_decay = 5e-4
    config.optimizer.warmup_steps = 1000
    return config


def faces(backbone):
    """Faces, class-level labels.

    Args:
        backbone: name of the net.

    Returns:
        ml_collections.ConfigDict.

    Example:
        >>> faces("iresnet34").steps
        182000
    """
    config = _config("tfrecord", image_size=112, batch=(128, 4), every=5000, steps=182_000)
    config.dataset.test_fraction = 0.005
    config.model.backbone = backbone
    config.loss.name, config.loss.margin, config.loss.gamma = "class_circle", 0.25, 256.0
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "steps"
    config.optimizer.weight_decay = 5e-4
    config.strategy = "mirrored"
    config.deterministic = False
    return config


def _config(name, *, image_size, batch, every, steps):
    config = base.get_config()
    config.dataset.name = name
    config.dataset.image_size = image_size
    config.dataset.channels = 3
    config.batch.classes_per_batch, config.batch.examples_per_class = batch
    config.model.embedding_dim = 512
    config.augment.flip = "horizontal"
    config.precision = "mixed_bfloat16"
    config.steps = steps
    config.eval_every = config.checkpoint_every = every
    return config
