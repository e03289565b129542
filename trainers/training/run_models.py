"""The models of a run: the embedding model that is kept, and the model that is trained."""

import dataclasses
import functools
import inspect

import keras
import ml_collections

import circle_tf
from circle_tf import backbones, baselines
from circle_tf.losses import hyperparameters
from circle_tf.optimizers import averages
from trainers.cli import commands
from trainers.distributed import acceleration
from trainers.training import fine_tuning, optimizers

__all__ = ["LOSSES", "OF_CLASSES", "Models", "build"]

# The losses of circle_tf.baselines, and what the recipe's margin and gamma are called there.
_PAIR_BASELINES = {
    "unified": (baselines.UnifiedLoss, {}),
    "contrastive": (baselines.ContrastiveLoss, {}),
    "triplet_semihard": (functools.partial(baselines.TripletLoss, mining="semihard"), {}),
    "triplet_hard": (functools.partial(baselines.TripletLoss, mining="hard"), {}),
    "triplet_all": (functools.partial(baselines.TripletLoss, mining="all"), {}),
    "lifted_structure": (baselines.LiftedStructureLoss, {}),
    "n_pairs": (baselines.NPairsLoss, {}),
    "multi_similarity": (baselines.MultiSimilarityLoss, {"margin": "base", "gamma": "beta"}),
}
_CLASS_BASELINES = {
    "norm_face": (baselines.NormFaceLoss, {}),
    "am_softmax": (baselines.AMSoftmaxLoss, {}),
    "arc_face": (baselines.ArcFaceLoss, {}),
    "proxy_anchor": (baselines.ProxyAnchorLoss, {}),
}
# Fields of some losses, beside what they are where they are off, and these losses.
_ON_COSINES = ("class_circle", *_CLASS_BASELINES)
OF_CLASSES = (*_ON_COSINES, "circle_head", "cross_entropy")  # They need no pairs in a batch.
_SOFTMAX = ("class_circle", "norm_face", "am_softmax", "arc_face", "cross_entropy")
_CLASS_FIELDS = {"sub_centers": (1, _ON_COSINES), "label_smoothing": (0, _SOFTMAX)}
_CLASS_LEVEL_GAMMA = 64.0  # Beside the pair-wise loss, where the recipe has None.
# Those that keep the head's default where the recipe has None.
_HEAD_FIELDS = ("max_bytes", "sample_rate", "product_dtype", "fused_update")


@dataclasses.dataclass(frozen=True, eq=False)
class Models:
    """Two models that share their weights.

    Args:
        embedding: raw pixels `[B, H, W, C]` in 0..255 to unit embeddings `[B, D]` float32.
        training: the compiled model that `fit` trains. With pair-wise losses it ends in the
            embeddings, with class-level losses in cosines or logits `[B, num_classes]`; with the
            head it takes the ids `[B]` as a second input and ends in losses `[B]`; with pair-wise
            and class-level loss it takes the ids too and ends in the embeddings.
        margin: of the loss, a float or a schedule, or None where it has none.
        gamma: of the loss, a float or a schedule, or None where it has none.
        final_margin: float, the margin at the end of the run, or None where it has none.
        backbone: raw pixels to features `[B, F]`.
        tuning: circle_tf.fine_tuning.FineTuning, prepared; None without.
        from_features: features to unit embeddings where `training` takes features of a cache in
            place of pixels; else None.
    """

    embedding: keras.Model
    training: keras.Model
    margin: hyperparameters.Scalar | None
    gamma: hyperparameters.Scalar | None
    final_margin: float | None
    backbone: keras.Model
    tuning: circle_tf.fine_tuning.FineTuning | None = None
    from_features: keras.Model | None = None

    @property
    def validated(self):
        """The embedding model from what `training` takes."""
        return self.from_features or self.embedding

    @property
    def counts_classes(self):
        """Whether its variables know classes by number: rows of class weights, ids in a memory."""
        has_rows = any(layer.name == "classes" for layer in self.training.layers)
        return has_rows or getattr(self.training, "memory", None) is not None


def build(config, *, image_shape, num_classes, steps):
    """Builds and compiles the models of a recipe.

    Args:
        config: recipe.
        image_shape: `(H, W, C)` of the images.
        num_classes: int, classes to train on; used by class-level losses.
        steps: int, length of the run in steps; shapes the learning rate, and what grows.

    Returns:
        Models, with all variables made, also the optimizer's.

    Raises:
        commands.ConfigError: a name or number in the recipe that cannot be.

    Example:
        >>> from configs import digits
        >>> models = build(digits.get_config(), image_shape=(8, 8, 1), num_classes=5, steps=10)
        >>> models.embedding.output_shape
        (None, 32)
    """
    _check_loss(config.loss)
    _check_batch(config)
    fine_tuning.check_cache(config)
    choice = acceleration.choose(config, acceleration.devices_of(config))
    # The updates of the weights; at least one, for the schedule to have an end.
    updates = max(1, steps // max(1, config.gradient_accumulation))
    with commands.config_errors():
        loss = _growing(config.loss, updates=updates)
        backbone = backbones.build(
            config.model.backbone,
            image_shape,
            pooling=config.model.pooling,
            weights=config.model.weights,
            partial_weights=config.model.partial_weights,
        )
        ends = LOSSES[config.loss.name](
            _dropped(backbone.output, config),
            dim=config.model.embedding_dim,
            classes=num_classes,
            loss=loss,
        )
    embedding = circle_tf.EmbeddingModel(backbone.input, ends.embeddings, name="embedding_model")
    cached = config.fine_tune.cache_features
    # Keras makes an input of the features; the layers behind them are the same in all models.
    start = backbone.output if cached else backbone.input
    inputs = [start, *ends.more_inputs] if ends.more_inputs else start
    training = circle_tf.EmbeddingModel(inputs, ends.outputs, name="training_model")
    with commands.config_errors():
        training.compile(
            optimizer=optimizers.build(config.optimizer, steps=updates),
            loss=ends.loss,
            metrics=ends.metrics or None,  # An empty list Keras would want to build.
            jit_compile=choice.jit_compile,
            # 0 is off; what is neither that nor a size is for compile to refuse.
            cached_gradient_batch=config.cached_gradient_batch or None,
            gradient_accumulation=config.gradient_accumulation,
            learning_rate_factors=_class_rate(config, training),
        )
        tuning = None if cached else fine_tuning.build(config.fine_tune, backbone)
        if tuning is not None:
            tuning.prepare(training)
    if config.optimizer.ema_momentum:
        training.optimizer = averages.keep_apart(training.optimizer)
    from_features = keras.Model(start, ends.embeddings) if cached else None
    margin, gamma = ends.of_loss("margin"), ends.of_loss("gamma")
    final_margin = config.loss.margin if callable(margin) else margin
    return Models(embedding, training, margin, gamma, final_margin, backbone, tuning, from_features)


def _dropped(features, config):
    """The features that the embedding layer takes."""
    if not config.model.dropout:
        return features
    # Of its own seed, so that the weights begin as without it.
    drop = keras.layers.Dropout(config.model.dropout, seed=config.seed, name="feature_dropout")
    return drop(features)


def _check_loss(loss):
    """Refuses names that are none, and what only other losses can do."""
    if loss.name not in LOSSES:
        known = ", ".join(LOSSES)
        raise commands.ConfigError(f"loss.name must be one of {known}; found {loss.name!r}.")
    fields = dict.fromkeys(("memory_size", "class_level_weight"), "circle")
    fields |= dict.fromkeys((*_HEAD_FIELDS, "shards"), "circle_head")
    for name, owner in fields.items():
        if loss[name] and loss.name != owner:
            raise commands.ConfigError(f"loss.{name} is for the loss {owner}; found {loss.name!r}.")
    for name in ("class_level_margin", "class_level_gamma"):
        if loss[name] is not None and not loss.class_level_weight:
            raise commands.ConfigError(f"loss.{name} wants a loss.class_level_weight above 0.")
    for name, (off, owners) in _CLASS_FIELDS.items():
        if loss[name] != off and loss.name not in owners:
            instead = " Use class_circle, the same loss." if loss.name == "circle_head" else ""
            raise commands.ConfigError(
                f"loss.{name} is for the losses {', '.join(owners)}; found {loss.name!r}.{instead}"
            )


def _check_batch(config):
    """Refuses batches without a positive pair where the loss lives on pairs."""
    if config.batch.examples_per_class < 2 and config.loss.name not in OF_CLASSES:
        raise commands.ConfigError(
            f"batch.examples_per_class must be 2 or more with the loss {config.loss.name}, which "
            f"has no positive pair else; 1 is for the losses {', '.join(OF_CLASSES)}."
        )


def _class_rate(config, model):
    """The factor of the class weights, by their layer; None where it is 1."""
    factor = config.optimizer.class_rate_factor
    if factor == 1:
        return None
    if not any(layer.name == "classes" for layer in model.layers):
        raise commands.ConfigError(
            "optimizer.class_rate_factor is for losses with class weights (class_circle, "
            f"circle_head, cross_entropy, {', '.join(_CLASS_BASELINES)}); found the loss "
            f"{config.loss.name!r}: leave it 1."
        )
    return {"classes": factor}


def _growing(loss, *, updates):
    """The section `loss`, with schedules for the margin and gamma that are to grow."""
    steps = max(1, round(loss.growth * updates))
    line = functools.partial(keras.optimizers.schedules.PolynomialDecay, decay_steps=steps)
    kinds = {
        "gamma": lambda start, end: circle_tf.schedules.GeometricGrowth(start, end, steps),
        "margin": lambda start, end: line(start, end_learning_rate=end),
    }
    found = ml_collections.ConfigDict(loss.to_dict(), type_safe=False)
    for name, grown in kinds.items():
        start, end = loss[f"{name}_start"], loss[name]
        if start is None:
            continue
        if end is None:
            raise commands.ConfigError(f"loss.{name}_start wants loss.{name}, where it is to end.")
        if loss.name == "keras_circle":
            raise commands.ConfigError(f"loss.{name}_start is not for keras_circle: leave it None.")
        found[name] = grown(start, end)
    return found


@dataclasses.dataclass(frozen=True, eq=False)
class _Ends:
    """What a loss puts on top of the backbone's features."""

    embeddings: keras.KerasTensor
    outputs: keras.KerasTensor
    loss: keras.losses.Loss | None
    metrics: list
    more_inputs: tuple = ()
    head: keras.layers.Layer | None = None
    has_margin: bool = True

    def of_loss(self, name):
        """A hyper-parameter of the loss, or of the head that is the loss; None without it."""
        return getattr(self.loss or self.head, name, None) if self.has_margin else None


def _circle(features, *, dim, classes, loss):
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    if loss.memory_size:
        pairwise = circle_tf.CrossBatchCircleLoss(
            loss.memory_size, start_step=loss.memory_start_step, **_given(loss)
        )
    elif loss.memory_start_step:
        raise commands.ConfigError("loss.memory_start_step wants a loss.memory_size above 0.")
    else:
        pairwise = circle_tf.CircleLoss(**_given(loss))
    monitors = circle_tf.metrics.monitors(margin=pairwise.margin)
    if not loss.class_level_weight:
        return _Ends(embeddings, embeddings, pairwise, monitors)
    ids = keras.Input((), dtype="int64", name="ids")
    outputs = _with_class_level(embeddings, ids, classes, loss)
    return _Ends(embeddings, outputs, pairwise, monitors, (ids,))


def _with_class_level(embeddings, ids, classes, loss):
    """The embeddings, with the class-level loss among the losses of the model that ends in them."""
    gamma = loss.class_level_gamma
    head = circle_tf.CircleHead(
        classes,
        **({} if loss.class_level_margin is None else {"margin": loss.class_level_margin}),
        gamma=_CLASS_LEVEL_GAMMA if gamma is None else gamma,
        as_model_loss=True,
        loss_weight=loss.class_level_weight,
        name="classes",
    )
    # A layer belongs to a model if its output passes through to the model's.
    through = keras.layers.Identity(dtype="float32", name="embedding_and_losses")
    return through([embeddings, head((embeddings, ids))])[0]


def _class_circle(features, *, dim, classes, loss):
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    cosines = _classifier(classes, loss)(embeddings)
    loss = circle_tf.ClassCircleLoss(**_given(loss))
    monitors = circle_tf.metrics.monitors(margin=loss.margin, labels="class")
    return _Ends(embeddings, cosines, loss, monitors)


def _classifier(classes, loss):
    return circle_tf.CosineClassifier(classes, sub_centers=loss.sub_centers, name="classes")


def _circle_head(features, *, dim, classes, loss):
    """As `_class_circle`, in a layer that needs not hold the cosines to all classes."""
    ids = keras.Input((), dtype="int64", name="ids")
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    own = {name: loss[name] for name in _HEAD_FIELDS if loss[name] is not None}
    head = circle_tf.CircleHead(
        classes,
        as_model_loss=True,
        shards=loss.shards or None,
        name="classes",
        **own,
        **_given(loss),
    )
    return _Ends(embeddings, head((embeddings, ids)), None, [], (ids,), head)


def _keras_circle(features, *, dim, classes, loss):
    """Keras' own Circle, to compare with."""
    del classes
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    hyper_parameters = _given(loss)
    if hyper_parameters.pop("reduction", None):
        raise commands.ConfigError("loss.reduction is not for keras_circle, which has its own.")
    loss = keras.losses.Circle(**hyper_parameters)
    return _Ends(embeddings, embeddings, loss, circle_tf.metrics.monitors(margin=loss.margin))


def _cross_entropy(features, *, dim, classes, loss):
    """A softmax classifier, to compare with: its last features are the embeddings."""
    if set(_given(loss)) - {"label_smoothing"}:
        raise commands.ConfigError("cross_entropy has no margin, gamma or reduction to set.")
    # Float32 as the other losses' logits, and not normalised: logits within -1..1 hardly train.
    bottleneck = keras.layers.Dense(dim, dtype="float32", name="embedding")(features)
    embeddings = keras.layers.UnitNormalization(dtype="float32", name="unit")(bottleneck)
    logits = keras.layers.Dense(classes, dtype="float32", name="classes")(bottleneck)
    if not loss.label_smoothing:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return _Ends(embeddings, logits, loss, ["accuracy"])
    # Keras' own wants one-hot labels for that. At gamma 1 this is the plain loss of any logits.
    loss = baselines.NormFaceLoss(gamma=1.0, **_given(loss))
    return _Ends(embeddings, logits, loss, ["accuracy"], has_margin=False)


def _pair_baseline(features, *, dim, classes, loss):
    del classes
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    return _Ends(embeddings, embeddings, _baseline(*_PAIR_BASELINES[loss.name], loss), _monitors())


def _class_baseline(features, *, dim, classes, loss):
    embeddings = circle_tf.UnitEmbedding(dim, name="embedding")(features)
    cosines = _classifier(classes, loss)(embeddings)
    return _Ends(
        embeddings,
        cosines,
        _baseline(*_CLASS_BASELINES[loss.name], loss),
        _monitors(labels="class"),
    )


def _monitors(**labels):
    return circle_tf.metrics.monitors(margin=circle_tf.CircleLoss().margin, **labels)


def _baseline(make, names, loss):
    given = {names.get(name, name): value for name, value in _given(loss).items()}
    unknown = set(given) - set(inspect.signature(make).parameters)
    if unknown:
        raise commands.ConfigError(
            f"loss.{min(unknown)} is not for {loss.name}: leave it None. "
            f"It takes {', '.join(inspect.signature(make).parameters)}."
        )
    return make(**given)


def _given(loss):
    """The hyper-parameters that the recipe sets; the others keep the class's defaults."""
    names = ("margin", "gamma", "reduction")
    given = {name: loss[name] for name in names if loss[name] is not None}
    return given | ({"label_smoothing": loss.label_smoothing} if loss.label_smoothing else {})


# What a recipe's `loss.name` can be, and the function that puts it on top of features.
LOSSES = {
    "circle": _circle,
    "class_circle": _class_circle,
    "circle_head": _circle_head,
    "keras_circle": _keras_circle,
    "cross_entropy": _cross_entropy,
    **dict.fromkeys(_PAIR_BASELINES, _pair_baseline),
    **dict.fromkeys(_CLASS_BASELINES, _class_baseline),
}
