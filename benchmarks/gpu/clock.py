"""Times and peaks of ways to do one thing on a GPU, as rows of the table.

A GPU works on while Python goes on: a timing launches several calls and waits for the last.
"""

import contextlib
import gc
import importlib.util
import os
import sys
import time

import numpy as np
import tensorflow as tf

from benchmarks import peers, timing
from benchmarks.gpu import table
from circle_tf.utils import devices

__all__ = ["Made", "Peer", "compared", "fits", "measured_alone", "seconds_of", "torch_peer"]

_ROUNDS = 5
_SECONDS = 0.1  # That a timing should last.
_MOST_CALLS = 50
_PEER_MODULE = "benchmarks.gpu.torch_peers"


class Made:
    """A step that is made only when its turn comes, and is gone after it.

    Args:
        make: function without arguments that returns the step, a function of none either.
    """

    def __init__(self, make):
        self._make = make

    def timer(self):
        """`fn(calls) -> seconds of one`, until the GPU is done."""
        step = self._make()

        def several(calls):
            for _ in range(calls):
                step()

        return seconds_of(several)


class Peer:
    """A step of PyTorch.

    Args:
        peer: `peers.Peer` of `torch_peers`.
        function: its name there.
        **options: its arguments.
    """

    def __init__(self, peer, function, **options):
        self._peer, self._function, self._options = peer, function, options
        self._peak = None

    def timer(self):
        """`fn(calls) -> seconds of one`."""

        def seconds(calls):
            found = self._peer.ask("timed", name=self._function, calls=calls, **self._options)
            if "error" in found:
                raise RuntimeError(found["error"])
            self._peak = found["peak"]
            return found["seconds"]

        return seconds

    def peak(self):
        """Bytes beyond the inputs at the last timing, None on a CPU."""
        return self._peak


def seconds_of(several):
    """Timer of `several(calls)`: `fn(calls) -> seconds of one`, until the GPU is done."""

    def seconds(calls):
        start = time.perf_counter()
        several(calls)
        tf.test.experimental.sync_devices()
        return (time.perf_counter() - start) / calls

    return seconds


def compared(title, ways, *, floor):
    """Rows of ways that do one thing.

    One after the other, not in turn: each has the memory to itself. A way that fails is a row that
    says so, and PyTorch's lack of memory is no failure of ours.

    Args:
        title: of the size.
        ways: by name, a step (function without arguments), `Made` or `Peer`.
        floor: name of the first one, to whose time the others' are ratios.

    Yields:
        dict, rows of the table.
    """
    least = None
    for name, way in ways.items():
        case = f"{title}: {name}"
        way = way if isinstance(way, Made | Peer) else Made(lambda step=way: step)
        measured, failure = _tried(case, way)
        if failure:
            yield failure
            continue
        seconds, peak = measured
        least = seconds if name == floor else least
        ratio = None if least is None else seconds / least
        yield _row(case, seconds, ratio, peak, floor)


def measured_alone(case, way, images):
    """The row of what trains on so many images: a `Peer`, or a timer as of `seconds_of`."""
    measured, failure = _tried(case, way)
    if failure:
        yield failure
        return
    seconds, peak = measured
    found = f"{images / seconds:,.0f} images/s, {1e3 * seconds:.3g} ms a step"
    found += "" if peak is None else f", peak {peak / 2**20:,.0f} MiB"
    numbers = {"images_per_second": images / seconds, "ms": 1e3 * seconds, "peak_bytes": peak}
    yield table.measured(case, found, **numbers)


def _tried(case, way):
    """`((seconds, peak), None)`, or `(None, row)` that says why there are none."""
    try:
        return _measure(way), None
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return None, (table.skipped if isinstance(way, Peer) else table.failed)(case, reason)


def _measure(way):
    gc.collect()  # What the way before it held.
    timer = way if callable(way) else way.timer()
    before = _memory(reset=True)
    timer(1)  # Traces and compiles.
    once = timer(1)
    calls = int(np.clip(_SECONDS / max(once, 1e-6), 1, _MOST_CALLS))
    seconds = timing.interleaved({"": lambda: timer(calls)}, rounds=_ROUNDS, warm_up=0)[""]
    if isinstance(way, Peer):
        peak = way.peak()
    else:
        peak = None if before is None else _memory()["peak"] - before["current"]
    return float(np.median(seconds)), peak


def _row(case, seconds, ratio, peak, floor):
    found = f"{1e3 * seconds:.3g} ms"
    if ratio is not None:
        found += f", {ratio:.3g} x {floor}"
    if peak is not None:
        found += f", peak {peak / 2**20:,.0f} MiB beyond the inputs"
    return table.measured(case, found, ms=1e3 * seconds, ratio=ratio, peak_bytes=peak)


def _memory(*, reset=False):
    """`{"current", "peak"}` bytes of the GPU, None without one."""
    if not tf.config.list_physical_devices("GPU"):
        return None
    if reset:
        tf.config.experimental.reset_memory_stats("GPU:0")
    return tf.config.experimental.get_memory_info("GPU:0")


def fits(needed):
    """Whether so many bytes fit into the memory of the GPU; of a CPU's, 4 GiB are taken."""
    total = devices.gpu_bytes()
    return needed <= 0.8 * total if total else needed <= 2**32


@contextlib.contextmanager
def torch_peer():
    """A `peers.Peer` of `torch_peers`, or a str that says why there is none."""
    if "CIRCLE_TF_PEERS" not in os.environ and importlib.util.find_spec("torch") is not None:
        os.environ["CIRCLE_TF_PEERS"] = sys.executable
    try:
        peer = peers.Peer(_PEER_MODULE)
    except FileNotFoundError as error:
        yield str(error)
        return
    with peer:
        try:
            peer.ask("versions")
        except RuntimeError as error:
            yield str(error)
        else:
            yield peer
