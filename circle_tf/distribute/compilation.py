"""What XLA compiles of a step, and what it cannot compile of a model, found before the first."""

import functools

import keras
import tensorflow as tf
from tensorflow.python.framework import config as framework_config
from tensorflow.python.ops import control_flow_util

from circle_tf.distribute import collectives, step_context

__all__ = [
    "call_compiled",
    "check_graph",
    "choose_jit",
    "compiled",
    "has_accelerator",
    "is_deterministic",
    "uncompilable_layers",
    "within_xla",
]

_REMEDY = "Move it into the input pipeline, replace it, or compile with jit_compile=False."
# What XLA's kernels refuse under enable_op_determinism, on CPUs too. Scatters, the other operation
# of XLA that is not repeatable by itself, are rewritten then.
_MAX_POOL_LAYERS = (keras.layers.MaxPooling1D, keras.layers.MaxPooling2D)
_MAX_POOLS = {"MaxPool", "MaxPoolV2"}
_NOT_REPEATABLE = (
    "XLA has no deterministic gradient of max pooling (MaxPoolGrad). Pool otherwise, or give up "
    "one of jit_compile=True and determinism."
)


def choose_jit(asked, layers):
    """Whether to compile by XLA: what was asked for, or the faster choice for the device.

    Args:
        asked: True, False, or "auto": on for GPU and TPU, off on CPU, where XLA's convolutions are
            slower than the ones TensorFlow has, and under `enable_op_determinism`.
        layers: dict of the layers XLA cannot compile, from `uncompilable_layers`.

    Returns:
        bool.

    Raises:
        ValueError: True, and there are such layers.

    Example:
        >>> choose_jit(False, {}), choose_jit(True, {}), choose_jit("auto", {"buckets": "Hashing"})
        (False, True, False)
        >>> choose_jit(True, {"buckets": "Hashing says that XLA does not support it."})
        Traceback (most recent call last):
        ValueError: jit_compile=True: XLA cannot compile these layers. buckets: Hashing says ...
    """
    if asked == "auto":
        return has_accelerator() and not is_deterministic() and not layers
    if asked and layers:
        listed = "; ".join(f"{name}: {reason}" for name, reason in layers.items())
        raise ValueError(f"jit_compile=True: XLA cannot compile these layers. {listed}")
    return bool(asked)


def uncompilable_layers(layers, *, replicas):
    """Layers that XLA cannot compile.

    Args:
        layers: Keras layers, a model's with all below them.
        replicas: int, number of replicas that train it.

    Returns:
        dict from layer name to the reason and the remedy.

    Example:
        >>> layers = [keras.layers.Dense(1), keras.layers.Hashing(8, name="buckets")]
        >>> uncompilable_layers(layers, replicas=1)
        {'buckets': 'Hashing says that XLA does not support it. ...'}
    """
    reasons = {layer.name: _reason(layer, replicas) for layer in layers}
    return {name: reason for name, reason in reasons.items() if reason}


def within_xla():
    """Whether what is traced now is to be compiled by XLA as a part of something.

    Returns:
        bool.

    Example:
        >>> within_xla()
        False
        >>> step = tf.function(lambda x: x * within_xla(), jit_compile=True, autograph=False)
        >>> float(step(tf.constant(2.0)))
        2.0
    """
    # TensorFlow has no public name for it.
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return graph is not None and bool(control_flow_util.GraphOrParentsInXlaContext(graph))


def _reason(layer, replicas):
    if not layer.supports_jit:
        return f"{type(layer).__name__} says that XLA does not support it. {_REMEDY}"
    if is_deterministic() and isinstance(layer, _MAX_POOL_LAYERS):
        return f"{type(layer).__name__} would have to be repeatable. {_NOT_REPEATABLE}"
    if replicas > 1 and getattr(layer, "synchronized", False):
        return (
            f"{type(layer).__name__}(synchronized=True) exchanges statistics between replicas "
            "within the forward pass. Use synchronized=False or jit_compile=False."
        )
    if replicas > 1 and getattr(layer, "crosses_replicas", False):
        return (
            f"{type(layer).__name__} gathers from the other replicas within the forward pass. Use "
            "the loss of the same name in compile(loss=...), or jit_compile=False."
        )
    return None


def check_graph(graph):
    """Refuses a traced forward pass that holds operations that XLA cannot compile, by layer.

    Args:
        graph: the `tf.Graph` that is being traced.

    Raises:
        ValueError: it works on strings or calls Python, or pools by maximum where operations are to
            be deterministic.

    Example:
        >>> with tf.Graph().as_default() as graph:
        ...     spelt = tf.strings.as_string(tf.zeros([2]), name="spells")
        ...     numbers = tf.strings.to_number(spelt)
        >>> check_graph(graph)
        Traceback (most recent call last):
        ValueError: jit_compile=True: XLA cannot compile these operations ...: spells (AsString)...
    """
    found = {op.name: op.type for op in graph.get_operations() if _is_uncompilable(op)}
    if found:
        listed = ", ".join(f"{name} ({kind})" for name, kind in found.items())
        raise ValueError(
            f"jit_compile=True: XLA cannot compile these operations (named by their layer): "
            f"{listed}. {_REMEDY}"
        )
    if is_deterministic():
        pools = [op.name for op in graph.get_operations() if op.type in _MAX_POOLS]
        if pools:
            raise ValueError(f"jit_compile=True: {', '.join(pools)}: {_NOT_REPEATABLE}")


def call_compiled(function, *tensors):
    """Calls a pure function of tensors, compiled by XLA where the step at hand asks for it.

    Collectives cannot stand inside: gather first, then hand over what was gathered.

    Args:
        function: function of tensors.
        *tensors: its arguments.

    Returns:
        What the function returns.

    Example:
        >>> float(call_compiled(tf.reduce_sum, tf.ones([3])))
        3.0
    """
    if not step_context.current().compiled:
        return function(*tensors)
    # A new tf.function at each trace: it captures this replica's variables and no other's.
    return tf.function(function, jit_compile=True, autograph=False)(*tensors)


def compiled(function):
    """Decorates a pure function of tensors that XLA compiles wherever it is called.

    Within something that is compiled as a whole it is a part of that.

    Args:
        function: function of tensors, and of Python values that are compared by value.

    Returns:
        Function.

    Example:
        >>> float(compiled(tf.reduce_sum)(tf.ones([3])))
        3.0
    """
    alone = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(*args, **options):
        return (function if collectives.on_tpu() else alone)(*args, **options)

    return call


def _is_uncompilable(op):
    if op.type in ("PyFunc", "EagerPyFunc", "PyFuncStateless"):
        return True
    if op.type in ("Assert", "Const", "Placeholder", "PrintV2", "StringFormat"):
        return False  # XLA drops assertions with their messages.
    tensors = [*op.inputs, *op.outputs]
    used_by_assert = op.outputs and all(
        consumer.type == "Assert" for output in op.outputs for consumer in output.consumers()
    )
    return any(tensor.dtype == tf.string for tensor in tensors) and not used_by_assert


def has_accelerator():
    """Whether there is a GPU or a TPU.

    Returns:
        bool.

    Example:
        >>> kinds = {device.device_type for device in tf.config.list_physical_devices()}
        >>> has_accelerator() == bool(kinds & {"GPU", "TPU"})
        True
    """
    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def is_deterministic():
    """Whether TensorFlow's `enable_op_determinism` holds in this process.

    Returns:
        bool.

    Example:
        >>> is_deterministic()
        False
    """
    # TensorFlow has no public name for it.
    return framework_config.is_op_determinism_enabled()
