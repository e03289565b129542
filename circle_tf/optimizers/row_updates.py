"""Optimizer steps by rows: those a sparse gradient has, or one block after the other."""

from __future__ import annotations

import weakref
from typing import Any

import keras
import tensorflow as tf

from circle_tf import compat
from circle_tf.optimizers import extension
from circle_tf.utils import sizes

__all__ = [
    "MIXING_OPTIMIZERS",
    "RowUpdates",
    "SelectedRowUpdates",
    "check_deferrable",
    "merged_rows",
    "update_rows_only",
]

# Of these an update of one row depends on other rows.
MIXING_OPTIMIZERS = {"Adafactor", "Lamb", "Muon"}
if compat.KERAS < (3, 10):  # Until then they make their moments without telling of which variable.
    MIXING_OPTIMIZERS |= {"Adagrad", "Ftrl"}
_BLOCK_BYTES = sizes.BLOCK_BYTES  # Of the rows that are updated at a time.


def update_rows_only(optimizer, variables):
    """An optimizer that leaves rows alone that have no gradient, and their moments.

    Keras' own makes sparse gradients dense: all rows of all moments are read and written. Here a
    row's moments stand still while it has no gradient, as in the "lazy" optimizers of TensorFlow.
    Weight decay and gradient clipping by norms of the whole model are done by Keras, on whole
    weights, as ever. Moving averages of weights move in all rows at each step, as ever; without
    several replicas, in a block of rows after the other.

    Args:
        optimizer: Keras optimizer that has not made its variables yet.
        variables: Keras variables whose gradients are sparse.

    Returns:
        The optimizer to use, `SelectedRowUpdates` on the state of the given one; the given one
        where an update of one row depends on other rows.

    Raises:
        ValueError: the optimizer has its variables already.
        NotImplementedError: under Keras 2.

    Example:
        >>> variable = keras.Variable(tf.ones([4, 1]))
        >>> optimizer = update_rows_only(keras.optimizers.SGD(1.0, momentum=0.9), [variable])
        >>> slices = tf.IndexedSlices(tf.constant([[0.5]]), tf.constant([2]), tf.constant([4, 1]))
        >>> for _ in range(2):
        ...     optimizer.apply([slices], [variable])
        >>> [round(float(value), 3) for value in variable.numpy()[:, 0]]
        [1.0, 1.0, -0.45, 1.0]
    """
    compat.require_keras_3("Updating sampled rows alone")
    if type(extension.inner_optimizer(optimizer)).__name__ in MIXING_OPTIMIZERS:
        return optimizer
    optimizer = extension.extended(optimizer, SelectedRowUpdates)
    extension.inner_optimizer(optimizer).select(variables)
    return optimizer


def check_deferrable(optimizer):
    """Refuses an optimizer that has to see a gradient as a whole before it updates by it.

    Args:
        optimizer: Keras optimizer.

    Raises:
        ValueError: it has.

    Example:
        >>> check_deferrable(keras.optimizers.Adam(clipnorm=1.0))
        Traceback (most recent call last):
            ...
        ValueError: A fused update is not for Adam with clipnorm: ...
    """
    settings = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")
    settings += ("gradient_accumulation_steps",)
    found = [name for name in settings if getattr(optimizer, name, None)]
    kind = type(optimizer).__name__
    if found or kind in MIXING_OPTIMIZERS or hasattr(optimizer, "inner_optimizer"):
        with_what = f" with {', '.join(found)}" if found else ""
        raise ValueError(
            f"A fused update is not for {kind}{with_what}: it looks at whole gradients before the "
            "update. Use SGD, Adam or another that updates each number by itself, without these "
            "settings and without loss scaling (mixed_bfloat16 needs none), or fused_update=False."
        )


def merged_rows(slices):
    """A sparse gradient without entries that share a row. Shapes are static, for XLA.

    Args:
        slices: `tf.IndexedSlices` of N rows.

    Returns:
        `(indices [N], values [N, D], count)`: the first `count` entries are the different rows and
        their whole gradients; what stands behind them has no meaning.

    Example:
        >>> slices = tf.IndexedSlices(tf.constant([[1.0], [2.0], [3.0]]), tf.constant([7, 5, 7]))
        >>> indices, values, count = merged_rows(slices)
        >>> indices.numpy()[:2].tolist(), values.numpy()[:2, 0].tolist(), int(count)
        ([5, 7], [2.0, 4.0], 2)
    """
    order = tf.argsort(slices.indices, stable=True)
    ordered = tf.gather(slices.indices, order)
    differs = tf.cast(ordered[1:] != ordered[:-1], tf.int32)
    starts = tf.concat([tf.ones_like(ordered[:1], tf.int32), differs], 0)
    groups = tf.cumsum(starts) - 1
    shape = tf.shape(order)
    indices = tf.tensor_scatter_nd_update(tf.zeros_like(ordered), groups[:, None], ordered)
    groups_of = tf.scatter_nd(order[:, None], groups, shape)
    sums = tf.math.unsorted_segment_sum(slices.values, groups_of, shape[0])
    return indices, sums, tf.reduce_sum(starts)


class RowUpdates:
    """Methods of a Keras optimizer, before its own: a sparse gradient updates its rows alone.

    The optimizer's own `update_step` is called with some rows at a time, in place of the variable
    and of its moments.
    """

    def build(self, variables: Any) -> None:
        """As Keras'."""
        self._record.made = self._record.made or not self.built
        super().build(variables)

    def add_variable_from_reference(
        self, reference_variable: Any, name: str | None = None, initializer: Any = "zeros"
    ) -> Any:
        """As Keras'; notes what belongs to which variable."""
        moment = super().add_variable_from_reference(
            reference_variable, name=name, initializer=initializer
        )
        self._record.moments.setdefault(self._var_key(reference_variable), []).append(moment)
        return moment

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """As Keras'; by rows, 32 MiB at a time, where the gradient is sparse."""
        if not isinstance(gradient, tf.IndexedSlices) or not self._takes_rows_of(variable):
            return super().update_step(gradient, variable, learning_rate)
        indices, values, count = merged_rows(gradient)

        def update(entries):
            rows, gradients = tf.gather(indices, entries), tf.gather(values, entries)
            self._update_block(variable, rows, gradients, learning_rate)

        return _each_block(update, count, of=variable, most=values.shape[0])

    @property
    def _record(self):
        return vars(self).setdefault("_row_record", _Record())

    def _takes_rows_of(self, variable):
        del variable
        return True

    def _check_made(self):
        if self.built and not self._record.made:
            raise RuntimeError(
                "The optimizer that was given to be prepared for updates by rows has made its "
                "variables since. Build and apply the one that was returned instead."
            )

    def _update_block(self, variable, rows, gradients, learning_rate, decay=None):
        """Updates different rows `[K]` of a tf.Variable by their gradients `[K, ...]`."""
        self._check_made()
        key = self._var_key(variable)
        # Keras' variable around it, for Keras shows no tf.Variable another value.
        seen = self._trainable_variables[self._get_variable_index(variable)]
        moments = self._record.moments.get(key, [])
        places = [(seen, variable), *((m, _beside(variable, m.value)) for m in moments)]
        with keras.StatelessScope() as scope:
            for whole, place in places:
                scope.add_update((whole, tf.gather(place, rows)))
            if decay is not None:
                scope.add_update((seen, seen.value * (1 - decay)))
            block = object.__new__(extension.subclass(type(self), _BlockUpdate))
            vars(block).update(vars(self), _scope=scope, _seen=seen, _key=key)
            block.update_step(gradients, seen, learning_rate)
            updated = [(place, scope.get_current_value(whole)) for whole, place in places]
        for place, values in updated:
            place.scatter_update(tf.IndexedSlices(values, rows))


class SelectedRowUpdates(RowUpdates):
    """`RowUpdates` of the variables of `select` alone, also by gradients computed in the update."""

    def select(self, variables):
        """Names the variables that are updated by rows.

        Args:
            variables: Keras variables.

        Raises:
            ValueError: the optimizer has its variables already, and did not know of these.
        """
        keys = {self._var_key(variable) for variable in variables}
        if self.built and not keys <= self._record.keys:
            raise ValueError(
                "The optimizer has made its variables already: give a new one, before its first "
                "step."
            )
        self._record.keys.update(keys)

    def defer(self, variable, each):
        """Takes a gradient that is computed only at the optimizer's step, a block at a time.

        The step has to be applied with a gradient of no rows (`tf.IndexedSlices`) for the variable,
        within the graph at hand.

        Args:
            variable: Keras variable, one of those of `select`.
            each: `fn(use)` that calls `use(rows [K], gradients [K, D])` for one block after the
                other, each row once.

        Raises:
            NotImplementedError: there is one for this step already.
            RuntimeError: the optimizer on whose state this is has made its variables itself.
        """
        self._check_made()
        if self._is_deferred(variable):
            raise NotImplementedError(
                f"{variable.path} has two deferred gradients in one step: call its layer once in a "
                "model, and compute its gradient once for each step of the optimizer."
            )
        graph = weakref.ref(tf.compat.v1.get_default_graph())
        self._record.deferred[_place(variable)] = graph, each

    def update_step(self, gradient, variable, learning_rate):
        """As that of `RowUpdates`; a gradient of no rows is the one that was deferred."""
        by_rows = isinstance(gradient, tf.IndexedSlices) and self._takes_rows_of(variable)
        if not by_rows or gradient.indices.shape[0] != 0:
            return super().update_step(gradient, variable, learning_rate)
        if not self._is_deferred(variable):
            raise RuntimeError(
                "The gradient of no rows is not one that was deferred in this step: apply "
                "gradients in the tf.function that computes them, and once."
            )
        _, each = self._record.deferred.pop(_place(variable))
        decay = None
        if self.weight_decay is not None and self._use_weight_decay(variable):
            decay = tf.cast(self.weight_decay, variable.dtype)
            decay *= tf.cast(learning_rate, variable.dtype)
        return each(
            lambda rows, gradients: self._update_block(
                variable, rows, gradients, learning_rate, decay
            )
        )

    def _takes_rows_of(self, variable):
        return self._var_key(variable) in self._record.keys

    # Keras makes several tensors as large as the weights of which it averages.
    def _update_model_variables_moving_average(self, trainable_variables):
        pairs = list(zip(trainable_variables, self._model_variables_moving_average, strict=True))
        several = self._distribution_strategy.num_replicas_in_sync > 1
        by_rows = [pair for pair in pairs if self._takes_rows_of(pair[0]) and not several]
        for variable, average in by_rows:
            self._average_rows(variable.value, average.value)
        rest = [pair for pair in pairs if not any(pair is done for done in by_rows)]
        seen = object.__new__(type(self))
        vars(seen).update(vars(self), _model_variables_moving_average=[a for _, a in rest])
        super(SelectedRowUpdates, seen)._update_model_variables_moving_average(
            [variable for variable, _ in rest]
        )

    def _average_rows(self, variable, average):
        """The averages after an update, as Keras', of one block of rows after the other."""
        momentum = self.ema_momentum * tf.cast(tf.not_equal(self.iterations, 0), variable.dtype)

        def update(rows):
            mean = momentum * tf.gather(average, rows)
            mean += (1 - momentum) * tf.gather(variable, rows)
            average.scatter_update(tf.IndexedSlices(mean, rows))

        _each_block(update, variable.shape[0], of=variable, most=variable.shape[0])

    def _is_deferred(self, variable):
        """Whether there is a gradient that was deferred in the graph at hand."""
        graph, _ = self._record.deferred.get(_place(variable), (lambda: None, None))
        return graph() is not None and graph() is tf.compat.v1.get_default_graph()

    # Keras decays whole weights before the update: too early for a gradient not computed yet.
    def _use_weight_decay(self, variable):
        return not self._is_deferred(variable) and super()._use_weight_decay(variable)


class _Record:
    """State of row updates; an object, since Keras tracks what lists and dicts of its own hold."""

    def __init__(self):
        self.keys, self.moments, self.deferred = set(), {}, {}
        self.made = False  # Whether the optimizer's variables were made with moments noted.


class _BlockUpdate:
    """Methods of an optimizer whose variables have, in a stateless scope, the values of some rows.

    What is assigned to them stays in the scope; that it has not the variable's shape is no matter.
    """

    def assign(self, variable, value):
        if self._scope.get_current_value(variable) is None:
            super().assign(variable, value)
        else:
            self._scope.add_update((variable, tf.cast(value, variable.dtype)))

    def assign_add(self, variable, value):
        self.assign(variable, tf.convert_to_tensor(variable) + value)

    def assign_sub(self, variable, value):
        self.assign(variable, tf.convert_to_tensor(variable) - value)

    def _var_key(self, variable):
        return self._key if variable is self._seen else super()._var_key(variable)


def _each_block(use, count, *, of, most):
    """Calls `use` with the numbers of `count` rows of a variable, `_BLOCK_BYTES` at a time."""
    size = max(1, _BLOCK_BYTES // (of.dtype.size * of.shape[1:].num_elements()))
    size = size if most is None else min(size, most)

    def block(start):
        # The last block is filled up with its last row, which is then written more than once.
        use(tf.minimum(start + tf.range(size), count - 1))
        return (start + size,)

    return tf.while_loop(lambda start: start < count, block, (0,), parallel_iterations=1)


def _place(variable):
    """Identifies a variable, and of its copies the one of the replica at hand."""
    is_keras = isinstance(variable, compat.KerasVariable)
    return id((compat.tf_variable(variable) if is_keras else variable).handle)


def _beside(variable, moment):
    """Of a moment's copies on several replicas, the one on the variable's own."""
    # TensorFlow keeps it with the variable or with its handle.
    of = variable if hasattr(variable, "_distributed_container") else variable.handle
    if not hasattr(of, "_distributed_container"):
        return moment
    container = of._distributed_container()
    local = container.distribute_strategy.experimental_local_results
    place = next(i for i, part in enumerate(local(container)) if part is variable)
    return local(moment)[place]
