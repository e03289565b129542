"""`EmbeddingModel`: the Keras model whose compile and fit suit in-batch losses."""

from __future__ import annotations

import contextlib
import inspect
import os
from typing import Any, Literal

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.distribute import collectives, compilation, step_context
from circle_tf.losses import hyperparameters
from circle_tf.optimizers import extension, rate_factors
from circle_tf.training import outputs, sharded_gradients
from circle_tf.utils import checks

__all__ = ["EmbeddingModel"]


@keras.saving.register_keras_serializable("circle_tf")
class EmbeddingModel(keras.Model):
    """A `keras.Model` for embeddings: same constructor, `compile`, `fit`, callbacks and saving.

    Different from `keras.Model`: under `tf.distribute.MirroredStrategy` and
    `MultiWorkerMirroredStrategy` training equals training on one device with the same global
    batches. Pairs cross replicas; counts, clipping, the check for inf, metrics and moving
    statistics are those of the global batch; random masks differ between replicas; XLA compiles
    each replica's forward pass and loss. `jit_compile="auto"` takes the faster choice for the
    device (XLA on GPU and TPU; off on CPU, where XLA's convolutions are slower). On one device it
    runs Keras' own steps. See docs/distributed.md. Margins and gammas that are schedules follow the
    optimizer's updates.

    Args:
        inputs: Keras inputs, usually raw pixels `[B, H, W, C]`.
        outputs: Keras outputs, usually unit embeddings `[B, D]` or cosines `[B, C]`.
        name: str.

    Raises:
        NotImplementedError: compiled under a strategy that has no global batch, or created on the
            stack of TensorFlow Addons.

    Example:
        >>> from circle_tf import CircleLoss, UnitEmbedding
        >>> pixels = keras.Input((8, 8, 1))
        >>> model = EmbeddingModel(pixels, UnitEmbedding(4)(keras.layers.Flatten()(pixels)))
        >>> model.compile(optimizer="adam", loss=CircleLoss())
        >>> model.predict(tf.zeros([2, 8, 8, 1]), verbose=0).shape
        (2, 4)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        compat.require_keras_3("EmbeddingModel")
        super().__init__(*args, **kwargs)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        *args: Any,
        jit_compile: bool | Literal["auto"] = "auto",
        gradient_accumulation: int = 1,
        cached_gradient_batch: int | None = None,
        learning_rate_factors: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """As `keras.Model.compile`.

        Args:
            optimizer: as `keras.Model.compile`. Over several replicas, and where a head is updated
                by rows or layers have rates of their own, `model.optimizer` is of a subclass, on
                the state of the one given, which stays as it is: both have one learning rate, the
                same iterations and moments. What is saved is of the class given. The averages of
                `use_ema` count updates where gradients are accumulated by the argument below.
            *args: as `keras.Model.compile`.
            jit_compile: True, False, or "auto" for the faster choice on the device at hand. True
                with layers that XLA cannot compile is an error that names them, as are max pools
                under `enable_op_determinism`.
            gradient_accumulation: int k of 1 or more. Each batch of `fit` is a micro-batch; the
                mean of the gradients of k of them is clipped and applied once. An inf in any of
                them skips the whole update. Pairs do not cross micro-batches.
            cached_gradient_batch: None, or int of 1 or more: activations of so many rows of a
                replica are held at a time, while the loss sees the whole batch; its gradients are
                those of the whole batch, at the price of a second forward pass. See
                docs/large-batches.md for what BatchNormalization then computes.
            learning_rate_factors: dict of layer names to factors above 0, of their updates and
                weight decay: `{"classes": 10.0}` trains the class weights of a
                `CosineClassifier(..., name="classes")` at ten times the rate. With the factors of
                `FineTuning` they multiply.
            **kwargs: as `keras.Model.compile`.

        Raises:
            NotImplementedError: a strategy that has no global batch.
            ValueError: layers XLA cannot compile, an optimizer of another strategy, layers that
                `cached_gradient_batch` cannot serve, a loss of another model, a factor for a layer
                that has no weights to train; a subclass' own step that leaves out this class'
                where that is needed.

        Warns:
            UserWarning: a class-level loss on embeddings, a loss on embeddings on cosines.

        References:
            Cached gradients: Gao et al., "Scaling Deep Contrastive Learning Batch Size under
            Memory Limited Setup", 2021.
        """
        strategy = self.distribute_strategy
        collectives.check_strategy(strategy)
        if self._several:
            _check_scope(self.variables)
        self._asked = {"jit_compile": jit_compile, "gradient_accumulation": gradient_accumulation}
        self._asked["cached_gradient_batch"] = cached_gradient_batch
        self._asked["learning_rate_factors"] = learning_rate_factors
        self._micro_batches = checks.whole_number(
            gradient_accumulation, "gradient_accumulation", least=1
        )
        self._cached_batch = self._check_cached_batch(cached_gradient_batch)
        self._accumulator = None
        if self._several or self._micro_batches > 1 or self._cached_batch is not None:
            self._check_own_steps()
            _keras_private().check()
        jit = self._choose_jit(jit_compile) and not kwargs.get("run_eagerly", False)
        # XLA compiles the parts of a step of ours, but the whole of a step of Keras'.
        in_parts = self._several or self._cached_batch is not None
        self._jit_parts = jit and in_parts and not _is_tpu(strategy)
        jit = jit and not in_parts
        with strategy.scope() if self._several else contextlib.nullcontext():
            against_keras = jit and compilation.is_deterministic()
            keras_jit = jit and not against_keras
            super().compile(extension.plain(optimizer), *args, jit_compile=keras_jit, **kwargs)
            if against_keras:
                _keras_private().compile_by_xla(self)
            if self._several:
                self._count_across_replicas()
            self._make_memory()
        outputs.check_losses(self)
        if self.optimizer is not None:
            self.optimizer = self._prepared(self.optimizer)
            self._tell_whose_updates()

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any
    ) -> keras.callbacks.History:
        """As `keras.Model.fit`; weights without targets, which Keras drops, are a ValueError."""
        _check_weights_kept(y, kwargs)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`; weights without targets, which Keras drops, are an error."""
        _check_weights_kept(y, kwargs)
        return super().evaluate(x, y, *args, **kwargs)

    def save(self, filepath: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.save`, to a `.keras` file; HDF5, which would not load, is an error."""
        if os.fspath(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"An EmbeddingModel is saved as a .keras file; found {os.fspath(filepath)!r}. "
                "Keras' old HDF5 format does not keep what loading it needs. Weights alone: "
                "save_weights('name.weights.h5')."
            )
        super().save(filepath, *args, **kwargs)

    @property
    def compiled_by_xla(self) -> bool:
        """Whether XLA compiles the steps, whole or in parts."""
        return bool(self.compiled and (self.jit_compile or self._jit_parts))

    @property
    def accumulator(self) -> Any:
        """State of the gradient accumulation (its `variables`), None without; for checkpoints."""
        return self._accumulator if self.compiled else None

    @property
    def memory(self) -> Any:
        """The `CrossBatchMemory` of a compiled `CrossBatchCircleLoss`, None without one."""
        return getattr(self.loss, "memory", None) if self.compiled else None

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """As `keras.Model.compute_loss`; losses with a memory fill it in training only."""
        # Keras before 3.4 does not tell: then it is the step that knows.
        training = bool(training) and step_context.current().training is not False
        known = {"training": training} if compat.COMPUTE_LOSS_TAKES_TRAINING else {}
        with step_context.entered(training=training):
            return super().compute_loss(x, y, y_pred, sample_weight, **known)

    @property
    def has_own_loss(self) -> bool:
        """Whether a subclass computes the loss, of which replicas then show it all rows."""
        return type(self).compute_loss is not EmbeddingModel.compute_loss

    @property
    def losses(self) -> list[Any]:
        """As `keras.Model.losses`."""
        passed = step_context.current().layer_losses
        return super().losses if passed is None else passed

    def train_step(self, data: Any) -> dict[str, Any]:
        """One training step of one replica."""
        if self._several or self._micro_batches > 1 or self._cached_batch is not None:
            return _steps().train_step(
                self,
                data,
                compiled=self._jit_parts,
                accumulator=self._accumulator,
                cached_batch=self._cached_batch,
            )
        with _weights_told(data):
            logs = super().train_step(data)
        if self.jit_compile and not tf.executing_eagerly():
            compilation.check_graph(tf.compat.v1.get_default_graph())
        return logs

    def test_step(self, data: Any) -> dict[str, Any]:
        """One evaluation step of one replica."""
        if self._several:
            return _steps().evaluation_step(self, data, compiled=self._jit_parts)
        with _weights_told(data), step_context.entered(training=False):
            return super().test_step(data)

    def predict_step(self, data: Any) -> Any:
        """The outputs for one replica's part of a batch."""
        if self._several and self.compiled:
            return _steps().predict_step(self, data, compiled=self._jit_parts)
        return super().predict_step(data)

    def make_train_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_train_function`."""
        if self._micro_batches > 1 and self._accumulator is None:
            with self.distribute_strategy.scope():
                self._accumulator = _steps().Accumulator(self._ever_trained, self._micro_batches)
        if not self._several:
            return super().make_train_function(force)
        if self.train_function is None or force:
            self.train_function = _steps().make_function(self, self.train_step)
        return self.train_function

    def make_test_function(self, force: bool = False) -> Any:
        """As `keras.Model.make_test_function`."""
        if not self._several:
            return super().make_test_function(force)
        if self.test_function is None or force:
            self.test_function = _steps().make_function(self, self.test_step)
        return self.test_function

    def get_compile_config(self) -> dict[str, Any] | None:
        """What `compile` was called with; "auto" stays "auto", for the next machine to decide."""
        config = super().get_compile_config()
        return {**config, **self._asked} if config else config

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles as saved; Keras does this itself only for models without their own compile."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    @property
    def _ever_trained(self):
        """Also those that are frozen at present, of which a built optimizer knows."""
        built = extension.inner_optimizer(self.optimizer).built
        known = _keras_private().variables_of(self.optimizer) if built else None
        return known or self.trainable_variables

    @property
    def _several(self):
        return self.distribute_strategy.num_replicas_in_sync > 1

    # Keras' own takes a batch from the data and reduces it over replicas, which several workers
    # cannot do.
    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if not self._several:
            return super()._maybe_symbolic_build(iterator=iterator, data_batch=data_batch)
        private = _keras_private()
        specs = data_batch if iterator is None else private.batch_signature(iterator)
        with self.distribute_strategy.scope():
            private.build_from(self, specs)
        return _check_metrics(self)

    def _choose_jit(self, asked):
        if asked is False or (asked == "auto" and not compilation.has_accelerator()):
            return False
        found = compilation.uncompilable_layers(
            _keras_private().all_layers(self),
            replicas=self.distribute_strategy.num_replicas_in_sync,
        )
        return compilation.choose_jit(asked, found)

    def _check_cached_batch(self, size):
        if size is None:
            return None
        from circle_tf.training import cached_gradients  # Needs keras_private.

        cached_gradients.check_layers(self)
        return checks.whole_number(size, "cached_gradient_batch", least=1)

    def _check_fused(self, layer):
        if not getattr(layer, "fused_update", False):
            return
        if self._micro_batches > 1:
            raise NotImplementedError(
                f"The layer {layer.name!r} has fused_update=True, which is not for "
                "gradient_accumulation."
            )
        if self._several and layer.shards is None:
            raise NotImplementedError(
                f"The layer {layer.name!r} has fused_update=True, which on several replicas wants "
                'shards="replicas".'
            )

    def _check_own_steps(self):
        for kind in type(self).__mro__[: type(self).__mro__.index(EmbeddingModel)]:
            for name in ("train_step", "test_step") if self._several else ("train_step",):
                step = vars(kind).get(name)
                if step is not None and name not in _names_in(step):
                    raise ValueError(
                        f"{kind.__name__}.{name} leaves out EmbeddingModel's, which is what trains "
                        "and evaluates over several replicas and by gradient_accumulation and "
                        f"cached_gradient_batch. Call super().{name}(data) in it, override "
                        "compute_loss instead, or train on one device without these."
                    )

    def _make_memory(self):
        losses = [loss for loss in tf.nest.flatten(self.loss) if hasattr(loss, "memory")]
        if losses and losses[0] is not self.loss:
            raise ValueError(
                "CrossBatchCircleLoss is for models with one output, as compile(loss=...) itself. "
                "For several outputs add the layer CrossBatchMemory to the model."
            )
        if losses:
            self.loss.build(self.output_shape[-1])
            if self._several:
                _check_scope(self.memory.variables)

    def _prepared(self, optimizer):
        """The optimizer for steps that are not Keras' own, where the model takes such."""
        if self._several or self._micro_batches > 1:
            _check_optimizer(optimizer, self.distribute_strategy)
        if self._several:
            sharded_gradients.check_optimizer(
                optimizer, self.trainable_variables, accumulated=self._micro_batches > 1
            )
        if self._several or _overwrites_mirrored(optimizer, self.distribute_strategy):
            optimizer = _keras_private().for_replicas(optimizer, self.trainable_variables)
        for layer in _layers_below(self):
            if hasattr(layer, "prepare_optimizer"):
                self._check_fused(layer)
                optimizer = layer.prepare_optimizer(optimizer)
        factors = self._asked["learning_rate_factors"]
        if not factors:
            return optimizer
        rates = rate_factors.of_layers(list(_layers_below(self)), factors)
        return rate_factors.with_rates(optimizer, rates, owner="compile")

    def _tell_whose_updates(self):
        """Lets schedules of margins and gammas count the updates of the optimizer."""
        given = self._compile_config.config
        parts = [self.loss, given.get("metrics"), given.get("weighted_metrics")]
        for part in [*tf.nest.flatten(parts), *_layers_below(self)]:
            if isinstance(part, hyperparameters.Hyperparameters):
                part.follow(self.optimizer)

    def _count_across_replicas(self):
        several_workers = isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        )
        if self.run_eagerly and several_workers:
            raise NotImplementedError(
                "run_eagerly=True: workers cannot exchange rows outside a tf.function. Debug under "
                "MirroredStrategy or without a strategy."
            )
        config = self._compile_config
        from circle_tf.training import replica_loss  # Needs Keras' private side, too.

        replica_loss.compile_loss_across(self, config.config["loss"], config.config["loss_weights"])


def _check_weights_kept(y, options):
    for name in ("sample_weight", "class_weight"):
        if y is None and options.get(name) is not None:
            raise ValueError(
                f"{name} wants targets: Keras drops weights where y is None. Give the ids as y too "
                "(fit([inputs, ids], ids, ...)), or a tf.data.Dataset of (x, y, sample_weight)."
            )


def _weights_told(data):
    """Within it, layers know the sample weights of a batch as Keras packs it."""
    weights = keras.utils.unpack_x_y_sample_weight(data)[2]
    return step_context.entered(sample_weight=weights)


def _layers_below(layer):
    for below in getattr(layer, "layers", []):
        yield below
        yield from _layers_below(below)


def _names_in(function):
    """Names of the attributes and globals that a function uses."""
    return getattr(getattr(inspect.unwrap(function), "__code__", None), "co_names", ())


# Keras' private side is another one in each version. It is imported where it is needed: on one
# device, without accumulation and cached gradients, any Keras 3 will do.
def _keras_private():
    from circle_tf.training import keras_private

    return keras_private


def _steps():
    from circle_tf.training import steps

    return steps


def _is_tpu(strategy):
    return type(strategy).__name__.startswith("TPUStrategy")


def _overwrites_mirrored(optimizer, strategy):
    """Whether the optimizer puts averages in place of weights of which a strategy keeps copies."""
    mirrored = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    overwrites = getattr(extension.inner_optimizer(optimizer), "ema_overwrite_frequency", None)
    return bool(overwrites) and isinstance(strategy, mirrored)


def _check_scope(variables):
    if not all(isinstance(v.value, tf.distribute.DistributedValues) for v in variables):
        raise ValueError(
            "The model was made outside the strategy under which it is compiled. Make it, its "
            "optimizer and its metrics under `with strategy.scope():`."
        )


def _check_optimizer(optimizer, strategy):
    if extension.inner_optimizer(optimizer).gradient_accumulation_steps:
        raise ValueError(
            "The optimizer's gradient_accumulation_steps fails over several replicas. Use "
            "compile(gradient_accumulation=...)."
        )
    several = strategy.num_replicas_in_sync > 1
    if several and _keras_private().optimizer_strategy(optimizer) is not strategy:
        raise ValueError(
            "The optimizer was made outside the model's strategy. Make it under "
            "`with strategy.scope():`."
        )


def _check_metrics(model):
    for variable in (variable for metric in model.metrics for variable in metric.variables):
        if not isinstance(variable.value, tf.distribute.DistributedValues):
            raise ValueError(
                f"A metric was made outside the model's strategy (its variable {variable.path!r}). "
                "Make it under `with strategy.scope():`."
            )
