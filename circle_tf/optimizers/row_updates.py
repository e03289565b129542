"""Optimizer steps by rows: those a sparse gradient has, or one block after the other."""

import weakref

import keras
import tensorflow as tf

from circle_tf import compat

__all__ = [
    "MIXING_OPTIMIZERS",
    "RowUpdates",
    "check_deferrable",
    "merged_rows",
    "update_rows_only",
]

# Of these an update of one row depends on other rows.
MIXING_OPTIMIZERS = {"Adafactor", "Lamb", "Muon"}
_BLOCK_BYTES = 2**25  # Of the rows that are updated at a time.
_TAKEN_OVER = ("add_variable_from_reference", "update_step", "_use_weight_decay", "_var_key")
_ASSIGNMENTS = ("assign", "assign_add", "assign_sub")


def update_rows_only(optimizer, variables):
    """Makes an optimizer leave rows alone that have no gradient, and their moments.

    Keras' own makes sparse gradients dense: all rows of all moments are read and written. Here a
    row's moments stand still while it has no gradient, as in the "lazy" optimizers of TensorFlow.
    Weight decay, gradient clipping by norms of the whole model and moving averages of weights are
    done by Keras, on whole weights, as ever.

    Args:
        optimizer: Keras optimizer that updates each number by itself and has not made its variables
            yet; others are left as they are.
        variables: Keras variables of rank 2 whose gradients are sparse.

    Returns:
        What takes deferred gradients, `RowUpdates`; None where the optimizer is left as it is.

    Raises:
        ValueError: the optimizer has its variables already.
        NotImplementedError: under Keras 2.

    Example:
        >>> variable = keras.Variable(tf.ones([4, 1]))
        >>> optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
        >>> updates = update_rows_only(optimizer, [variable])
        >>> slices = tf.IndexedSlices(tf.constant([[0.5]]), tf.constant([2]), tf.constant([4, 1]))
        >>> for _ in range(2):
        ...     optimizer.apply([slices], [variable])
        >>> [round(float(value), 3) for value in variable.numpy()[:, 0]]
        [1.0, 1.0, -0.45, 1.0]
    """
    compat.require_keras_3("Updating sampled rows alone")
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if type(optimizer).__name__ in MIXING_OPTIMIZERS:
        return None
    keys = {optimizer._var_key(variable) for variable in variables}
    known = optimizer.__dict__.get("_circle_tf_rows")
    if known is not None and keys <= known.keys:
        return known
    if optimizer.built:
        raise ValueError(
            "The optimizer has made its variables already: give a new one, before its first step."
        )
    known = known or RowUpdates(optimizer)
    known.keys.update(keys)
    return known


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
    starts = tf.cast(ordered[1:] != ordered[:-1], tf.int32)
    groups = tf.concat([[0], tf.cumsum(starts)], 0)
    shape = tf.shape(order)
    indices = tf.tensor_scatter_nd_update(tf.zeros_like(ordered), groups[:, None], ordered)
    groups_of = tf.scatter_nd(order[:, None], groups, shape)
    sums = tf.math.unsorted_segment_sum(slices.values, groups_of, shape[0])
    return indices, sums, groups[-1] + 1


class RowUpdates:
    """Stands between an optimizer and its variables during the update of some rows.

    Args:
        optimizer: Keras optimizer that has not made its variables yet.
    """

    def __init__(self, optimizer):
        self.keys, self._moments, self._deferred = set(), {}, {}
        self._rows, self._scope = None, None
        self._plain = {name: getattr(optimizer, name) for name in (*_TAKEN_OVER, *_ASSIGNMENTS)}
        own = optimizer.__dict__
        own["_circle_tf_rows"] = self
        own["add_variable_from_reference"] = self._add
        own["update_step"] = self._update
        own["_use_weight_decay"] = self._decays_whole
        own["_var_key"] = self._key
        own["assign"] = self._assign
        own["assign_add"] = lambda variable, value: self._change(variable, value, 1)
        own["assign_sub"] = lambda variable, value: self._change(variable, value, -1)

    def defer(self, variable, each):
        """Takes a gradient that is computed only at the optimizer's step, a block at a time.

        The step has to be applied with a gradient of no rows (`tf.IndexedSlices`) for the variable,
        within the graph at hand.

        Args:
            variable: Keras variable, one of those of `update_rows_only`.
            each: `fn(use)` that calls `use(rows [K], gradients [K, D])` for one block after the
                other, each row once.

        Raises:
            NotImplementedError: there is one for this step already.
        """
        key = self._key(variable)
        if self._is_deferred(key):
            raise NotImplementedError(
                f"{variable.path} has two deferred gradients in one step: call its layer once in a "
                "model, and compute its gradient once for each step of the optimizer."
            )
        self._deferred[key] = weakref.ref(tf.compat.v1.get_default_graph()), each

    def _is_deferred(self, key):
        """Whether there is a gradient that was deferred in the graph at hand."""
        graph = self._deferred[key][0]() if key in self._deferred else None
        return graph is not None and graph is tf.compat.v1.get_default_graph()

    def _add(self, reference_variable, name=None, initializer="zeros"):
        moment = self._plain["add_variable_from_reference"](
            reference_variable, name=name, initializer=initializer
        )
        key = self._key(reference_variable)
        if key in self.keys:
            self._moments.setdefault(key, []).append(moment)
        return moment

    def _key(self, variable):
        return self._plain["_var_key"](
            variable.variable if isinstance(variable, _Rows) else variable
        )

    def _update(self, gradient, variable, learning_rate):
        key = self._key(variable)
        if key not in self.keys or not isinstance(gradient, tf.IndexedSlices):
            return self._plain["update_step"](gradient, variable, learning_rate)
        moments = self._moments.get(key, [])
        places = {id(moment): _beside(variable, moment.value) for moment in moments}
        if gradient.indices.shape[0] == 0:

            def use(rows, gradients):
                seen = self._decayed(variable, tf.gather(variable, rows), learning_rate)
                self._update_block(rows, gradients, seen, places, moments, learning_rate)

            return self._take_deferred(key)(use)
        indices, values, count = merged_rows(gradient)
        size = max(1, _BLOCK_BYTES // (values.dtype.size * variable.shape[1]))
        if values.shape[0] is not None:
            size = min(size, values.shape[0])

        def block(start):
            # The last block is filled up with its last row, which is then written more than once.
            entries = tf.minimum(start + tf.range(size), count - 1)
            rows = tf.gather(indices, entries)
            seen = _Rows(variable, tf.gather(variable, rows))
            gradients = tf.gather(values, entries)
            self._update_block(rows, gradients, seen, places, moments, learning_rate)
            return (start + size,)

        return tf.while_loop(lambda start: start < count, block, (0,), parallel_iterations=1)

    def _take_deferred(self, key):
        if not self._is_deferred(key):
            raise RuntimeError(
                "The gradient of no rows is not one that was deferred in this step: apply "
                "gradients in the tf.function that computes them, and once."
            )
        return self._deferred.pop(key)[1]

    def _decays_whole(self, variable):
        """Whether Keras decays a variable, before whose deferred gradient is computed by it."""
        key = self._key(variable)
        return not self._is_deferred(key) and self._plain["_use_weight_decay"](variable)

    def _decayed(self, variable, rows, learning_rate):
        optimizer = self._plain["update_step"].__self__
        if optimizer.weight_decay is None or not self._plain["_use_weight_decay"](variable):
            return _Rows(variable, rows)
        decay = tf.cast(optimizer.weight_decay, rows.dtype) * tf.cast(learning_rate, rows.dtype)
        return _Rows(variable, rows - rows * decay)

    def _update_block(self, indices, values, seen, places, moments, learning_rate):
        self._rows = {key: tf.gather(place, indices) for key, place in places.items()}
        try:
            with keras.StatelessScope() as scope:
                for moment in moments:
                    scope.add_update((moment, self._rows[id(moment)]))
                self._scope = scope
                self._plain["update_step"](values, seen, learning_rate)
        finally:
            rows, self._rows = self._rows, None
        for key, place in places.items():
            place.scatter_update(tf.IndexedSlices(rows[key], indices))
        seen.variable.scatter_update(tf.IndexedSlices(seen.rows, indices))

    def _assign(self, variable, value):
        if isinstance(variable, _Rows):
            variable.rows = tf.cast(value, variable.dtype)
        elif self._rows is not None and id(variable) in self._rows:
            self._rows[id(variable)] = tf.cast(value, variable.dtype)
            self._scope.add_update((variable, self._rows[id(variable)]))
        else:
            self._plain["assign"](variable, value)

    def _change(self, variable, value, sign):
        if isinstance(variable, _Rows) or self._rows is not None and id(variable) in self._rows:
            return self._assign(variable, tf.convert_to_tensor(variable) + sign * value)
        change = self._plain["assign_add" if sign > 0 else "assign_sub"]
        return change(variable, value)


class _Rows:
    """What an optimizer sees of a variable: some rows of it, by the variable's name."""

    def __init__(self, variable, rows):
        self.variable, self.rows = variable, rows

    @property
    def shape(self):
        return self.rows.shape

    def __tf_tensor__(self, dtype=None, name=None):
        return tf.convert_to_tensor(self.rows, dtype=dtype, name=name)

    def __getattr__(self, name):
        return getattr(self.variable, name)


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
