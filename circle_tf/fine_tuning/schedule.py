"""`FineTuning`: freezes a backbone, unfreezes it in time, and slows its blocks down."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from circle_tf import compat
from circle_tf.fine_tuning import blocks
from circle_tf.optimizers import extension, rate_factors
from circle_tf.utils import checks

__all__ = ["FineTuning", "TunedBlock"]


class TunedBlock(NamedTuple):
    """A block of the backbone.

    Args:
        name: the name that its layers have in common, or that of the first.
        layers: those with weights.
        learning_rate_factor: of the learning rate and the weight decay; 0 where it never trains.
    """

    name: str
    layers: list[keras.layers.Layer]
    learning_rate_factor: float


class FineTuning(keras.callbacks.Callback):
    """Trains a pretrained backbone with care: a callback of `fit`, for any compiled `keras.Model`.

    For the first updates the backbone is frozen: its weights and moving statistics stand still, and
    nothing is computed backwards through it. Then its blocks train from `unfreeze_from` up, each
    at the learning rate (and weight decay) times `learning_rate_factor * layer_decay ** depth`;
    depth is 1 for the block at the output and grows towards the input. What is not in the backbone
    trains at the full rate from the start, or at that of `compile(learning_rate_factors=...)`.

    A frozen layer's BatchNormalization works as in inference. The change of phase traces the
    training step anew, once. The optimizer has its moments for all variables that ever train, so
    that a checkpoint fits both phases, and corrects bias by the updates of each.

    While `fit` runs the layers' `trainable` is the schedule's, at its end what it was. Where blocks
    have factors, `model.optimizer` is of a subclass, on the state of the one compiled with; what is
    saved is of the class given. Give each `fit` the callback, also after loading; to train without
    it, compile anew.

    Args:
        backbone: keras.Model of which the trained model has the layers. Layers in it that are
            frozen already stay so, but a block that is to train must have something to train.
        freeze_steps: updates, 0 or more, for which the whole backbone is frozen. Counted by the
            optimizer's iterations, so that a resumed training goes on in its phase.
        unfreeze_from: what trains afterwards: None for all; the name of a block or layer, from
            which on all trains; or a share 0..1 of the blocks that stays frozen (1: no block
            trains).
        learning_rate_factor: of the backbone, above 0.
        layer_decay: above 0, up to 1.
        freeze_batch_normalization: whether the backbone's BatchNormalization stays frozen, weights
            and moving statistics, for good.

    Attributes:
        blocks: list of `TunedBlock`, from the input to the output.
        freeze_steps: as given.

    Raises:
        ValueError: a number out of range, no such block, a backbone that has no weights, a block
            that is to train and is frozen already; by `prepare` and `fit`: another model's
            backbone, an optimizer that does not know of the backbone's variables.

    Example:
        >>> pixels = keras.Input((8,))
        >>> hidden = keras.layers.Dense(4, name="block_1")(pixels)
        >>> backbone = keras.Model(pixels, keras.layers.Dense(4, name="block_2")(hidden))
        >>> model = keras.Model(pixels, keras.layers.Dense(2)(backbone.output))
        >>> model.compile("adam", loss="mse")
        >>> tuning = FineTuning(backbone, freeze_steps=100, layer_decay=0.5)
        >>> [(block.name, block.learning_rate_factor) for block in tuning.blocks]
        [('block_1', 0.25), ('block_2', 0.5)]
        >>> _ = model.fit(keras.ops.ones((4, 8)), keras.ops.ones((4, 2)), verbose=0,
        ...     callbacks=[tuning])
        >>> tuning.frozen
        True

    References:
        Layer-wise decay: Clark et al., "ELECTRA", 2020; Bao et al., "BEiT", 2022.
    """

    def __init__(
        self,
        backbone: keras.Model,
        *,
        freeze_steps: int = 0,
        unfreeze_from: str | float | None = None,
        learning_rate_factor: float = 1.0,
        layer_decay: float = 1.0,
        freeze_batch_normalization: bool = False,
    ) -> None:
        compat.require_keras_3("FineTuning")
        super().__init__()
        self.freeze_steps = checks.whole_number(freeze_steps, "freeze_steps", least=0)
        _check_factors(learning_rate_factor, layer_decay)
        found = blocks.blocks_of(backbone)
        first = blocks.first_trained(found, unfreeze_from)
        rates = [
            learning_rate_factor * layer_decay ** (len(found) - number) if number >= first else 0.0
            for number in range(len(found))
        ]
        for block in found[first:]:
            _check_trainable(block, backbone)
        self.blocks = [
            TunedBlock(block.name, block.layers, rate)
            for block, rate in zip(found, rates, strict=True)
        ]
        self._backbone, self._keeps_statistics = backbone, freeze_batch_normalization
        self._given = [(layer, layer.trainable) for layer in _keras_private().all_layers(backbone)]
        self._frozen, self._traced, self._left = None, (None, None), 0

    @property
    def frozen(self) -> bool | None:
        """Whether the whole backbone is frozen at present; None before `prepare` and `fit`."""
        return self._frozen

    @property
    def never_trains(self) -> bool:
        """Whether no block of the backbone ever trains."""
        return not any(block.learning_rate_factor for block in self.blocks)

    def prepare(self, model: keras.Model) -> None:
        """Sets a compiled model up for the phase it is in; `fit` does it by itself.

        For a training loop of one's own, and to restore an optimizer's state: its variables are
        made.

        Args:
            model: compiled keras.Model.
        """
        self.set_model(model)
        self._set_trainable(frozen=False)
        self._check(model)
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
        self._set_rates(model)
        self._enter()

    def on_train_begin(self, logs: Any = None) -> None:
        """Enters the phase."""
        self.prepare(self.model)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Unfreezes when it is time."""
        if not self._frozen or self.never_trains:
            return
        # Not at each batch: reading the iterations waits for the device.
        self._left -= self.model.steps_per_execution
        if self._left <= 0:
            self._enter()

    def on_train_end(self, logs: Any = None) -> None:
        """Gives the layers back as they were."""
        for layer, given in self._given:  # Parents first, which set all below them.
            layer.trainable = given

    def _enter(self):
        """Sets the phase by the updates that are done."""
        inner = extension.inner_optimizer(self.model.optimizer)
        self._left = self.freeze_steps - int(inner.iterations.numpy())
        self._frozen = self.never_trains or self._left > 0
        self._set_trainable(frozen=self._frozen)
        phase, function = self._traced
        if phase != self._frozen or function is not self.model.train_function:
            self.model.make_train_function(force=True)
            self._traced = self._frozen, self.model.train_function

    def _set_trainable(self, *, frozen):
        self.on_train_end()
        for block in self.blocks:
            for layer in block.layers if frozen or not block.learning_rate_factor else ():
                layer.trainable = False
        for layer, _ in self._given if self._keeps_statistics else ():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False

    def _set_rates(self, model):
        rates = [
            (variable, rate_factors.Rate(block.learning_rate_factor, self.freeze_steps))
            for block in self.blocks
            for layer in block.layers
            for variable in layer.trainable_variables
        ]
        if any(rate != rate_factors.Rate() for _, rate in rates):
            model.optimizer = rate_factors.with_rates(model.optimizer, rates, owner="fine_tuning")

    def _check(self, model):
        if not model.compiled or model.optimizer is None:
            raise ValueError(f"FineTuning: compile the model {model.name!r} first.")
        held = {id(weight) for weight in model.weights}
        if not held.issuperset(map(id, self._backbone.weights)):
            raise ValueError(
                f"FineTuning: the model {model.name!r} does not hold all weights of the backbone "
                f"{self._backbone.name!r}. Give the backbone that the model was made with."
            )
        if self.freeze_steps % model.steps_per_execution:
            raise ValueError(
                f"freeze_steps must be a multiple of steps_per_execution, "
                f"{model.steps_per_execution}, within which no layer can be unfrozen; found "
                f"{self.freeze_steps}."
            )
        if not extension.inner_optimizer(model.optimizer).built:
            return
        known = {id(variable) for variable in _keras_private().variables_of(model.optimizer)}
        if not known.issuperset(map(id, model.trainable_variables)):
            raise ValueError(
                "FineTuning: the optimizer has made its variables while some of what is to train "
                "was frozen. Give compile a new one, and leave freezing to FineTuning."
            )


def _check_trainable(block, backbone):
    if not backbone.trainable or not any(layer.trainable_variables for layer in block.layers):
        raise ValueError(
            f"FineTuning: the block {block.name!r} is to train, but is frozen. Leave freezing to "
            "FineTuning: set trainable = True for the backbone and its layers (a fit that was "
            "interrupted leaves them frozen)."
        )


def _check_factors(learning_rate_factor, layer_decay):
    if not 0 < learning_rate_factor < float("inf"):
        raise ValueError(
            f"learning_rate_factor must be above 0; found {learning_rate_factor}. A backbone that "
            "never trains: unfreeze_from=1."
        )
    if not 0 < layer_decay <= 1:
        raise ValueError(f"layer_decay must be above 0, up to 1; found {layer_decay}.")


def _keras_private():
    from circle_tf.training import keras_private  # Needs Keras 3.

    return keras_private
