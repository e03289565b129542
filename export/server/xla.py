"""XLA switched off for the process, as in a stock TF Serving."""

import contextlib
import ctypes
import threading

__all__ = ["disabled"]

_LIBRARY = "libtensorflow_cc.so.2"
# No public API: C++ functions of tensorflow/compiler/jit/flags.h. A test holds that they work.
_DISABLE = "_ZN10tensorflow21DisableXlaCompilationEv"
_ENABLE = "_ZN10tensorflow20EnableXlaCompilationEv"

_lock = threading.Lock()
_holders = 0


@contextlib.contextmanager
def disabled():
    """XLA is off for the whole process until the last one that asked for it is done.

    A signature with `jit_compile` then answers INTERNAL: XLA compilation disabled, and does not
    pass for one that TF Serving could serve.

    Yields:
        bool: whether it could be switched off (another TensorFlow may lack the switch).
    """
    found = _count(1)
    try:
        yield found
    finally:
        _count(-1)


def _count(change):
    global _holders
    with _lock:
        before, _holders = _holders, _holders + change
        if before and _holders:
            return True
        return _call(_DISABLE if _holders else _ENABLE)


def _call(name):
    try:
        getattr(ctypes.CDLL(_loaded_library(), mode=ctypes.RTLD_LOCAL), name)()
    except (AttributeError, OSError, StopIteration):
        return False
    return True


def _loaded_library():
    """The path under which TensorFlow's library is loaded: another copy has its own switch."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        return next(line.split(maxsplit=5)[5].strip() for line in maps if _LIBRARY in line)
