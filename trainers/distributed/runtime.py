"""The set-up of a process before training: strategy, precision, seed, determinism."""

import contextlib

import keras
import tensorflow as tf

from trainers.cli import commands
from trainers.distributed import acceleration, cluster

__all__ = ["cluster_of", "multi_worker", "set_up"]


def set_up(config):
    """Sets what TensorFlow and Keras keep per process, from a recipe.

    Args:
        config: recipe; reads `strategy`, `devices`, `precision`, `jit`, `deterministic`, `seed`.

    Returns:
        tf.distribute.Strategy to build the model in.

    Raises:
        commands.ConfigError: a value that is not known or not supported.
    """
    choice = acceleration.choose(config, acceleration.devices_of(config))
    if choice.deterministic:
        _run_one_operation_at_a_time()
    # First of all: workers connect before anything else runs.
    strategy = _strategy(config)
    keras.config.set_dtype_policy(choice.precision)
    if choice.deterministic:
        tf.config.experimental.enable_op_determinism()
    if not tf.config.list_physical_devices("GPU"):
        # On CPUs it turns sums of gradients in residual nets, where they need much memory, into
        # sums in place that race: wrong gradients at some steps. That pass has no switch alone.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.utils.set_random_seed(config.seed)
    return strategy


def _run_one_operation_at_a_time():
    """Makes sums of three and more gradients the same each time.

    TensorFlow's AddN begins with an input whose memory it may write to: one that no other operation
    is still reading. Which one that is, and so how the sum is rounded, is chance where operations
    run side by side, and `enable_op_determinism` knows nothing of it. One operation still uses
    all cores.
    """
    # Too late where TensorFlow has run already, as in a notebook.
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(1)


def cluster_of(strategy):
    """Which worker this process is; the only one but under `multi_worker`.

    Args:
        strategy: what `set_up` returned.

    Returns:
        trainers.distributed.cluster.Cluster.

    Example:
        >>> cluster_of(tf.distribute.get_strategy()).is_chief
        True
    """
    several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
    return cluster.Cluster.from_environment() if several else cluster.Cluster()


def _strategy(config):
    makers = {"single": _single, "mirrored": _mirrored, "multi_worker": multi_worker}
    if config.strategy not in makers:
        raise commands.ConfigError(
            f"strategy must be one of {', '.join(makers)}; found {config.strategy!r}."
        )
    if config.devices < 0:
        raise commands.ConfigError(f"devices must be 0 (all) or more; found {config.devices}.")
    return makers[config.strategy](config.devices)


def _single(devices):
    if devices > 1:
        raise commands.ConfigError(
            f"strategy=single uses one device; found devices={devices}. Set strategy=mirrored."
        )
    return tf.distribute.get_strategy()


def _mirrored(devices):
    return tf.distribute.MirroredStrategy(_devices(devices))


def multi_worker(devices):
    """MultiWorkerMirroredStrategy over so many devices of each worker that TF_CONFIG lists.

    Args:
        devices: int; 0 for all GPUs of the machine, or its one CPU.

    Returns:
        tf.distribute.MultiWorkerMirroredStrategy.

    Raises:
        commands.ConfigError: no TF_CONFIG, or fewer devices than that.
    """
    cluster.Cluster.from_environment()
    used = _devices(devices)
    if used[0].startswith("CPU") and len(used) > 1:
        return _over_logical_cpus(used)
    return tf.distribute.MultiWorkerMirroredStrategy()


def _over_logical_cpus(names):
    """MultiWorkerMirroredStrategy over several CPUs of a worker, of which it would take one.

    TensorFlow asks the cluster for numbers of GPUs and TPUs alone, and has no option for others:
    see TODO(b/126786766) in its `_initialize_local_devices`.
    """
    from tensorflow.python.distribute import collective_all_reduce_strategy as private

    class Extended(private.CollectiveAllReduceExtended):
        def _initialize_local_devices(self, cluster_resolver, worker_device):
            del cluster_resolver
            return tuple(f"{worker_device}/device:{name}" for name in names), "CPU"

    class Strategy(tf.distribute.MultiWorkerMirroredStrategy):
        def __init__(self):
            options = tf.distribute.experimental.CommunicationOptions()
            extended = Extended(self, cluster_resolver=None, communication_options=options)
            tf.distribute.Strategy.__init__(self, extended)

    return Strategy()


def _devices(wanted):
    """Names of this machine's devices to train on; the others are hidden."""
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if wanted > len(gpus):
            raise commands.ConfigError(f"devices={wanted}: this machine has {len(gpus)} GPUs.")
        tf.config.set_visible_devices(gpus[: wanted or None], "GPU")
        return [f"GPU:{index}" for index in range(wanted or len(gpus))]
    wanted = wanted or 1
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        logical = [tf.config.LogicalDeviceConfiguration()] * wanted
        if wanted > len(tf.config.get_logical_device_configuration(cpu) or [None]):
            tf.config.set_logical_device_configuration(cpu, logical)
    except RuntimeError as error:
        raise commands.ConfigError(
            f"devices={wanted}: TensorFlow has started with fewer devices in this process."
        ) from error
    return [f"CPU:{index}" for index in range(wanted)]
