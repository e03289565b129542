"""What a GPU has room for."""

import ctypes

import tensorflow as tf

__all__ = ["gpu_bytes"]


def gpu_bytes():
    """Bytes of memory that TensorFlow's first GPU has for it.

    What is free at the moment says little: by default TensorFlow takes nearly all of a GPU's memory
    as soon as it starts.

    Returns:
        int; None where there is no GPU that TensorFlow sees, or its driver does not tell.

    Example:
        >>> gpus = tf.config.list_physical_devices("GPU")
        >>> gpu_bytes() is None or bool(gpus)
        True
    """
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return None
    limits = tf.config.get_logical_device_configuration(gpus[0]) or []
    found = [2**20 * limit.memory_limit for limit in limits if limit.memory_limit]
    number = tf.config.list_physical_devices("GPU").index(gpus[0])
    return min([*found, *_of_driver(number)], default=None)


def _of_driver(number):
    """`[bytes]` of a GPU of this process, `[]` where CUDA's driver is not there or refuses."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    device, total = ctypes.c_int(), ctypes.c_size_t()
    failed = (
        cuda.cuInit(0)
        or cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device)
    )
    return [] if failed else [total.value]
