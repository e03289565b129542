"""Times of several ways to do one thing, read as ratios: taken in turn, round by round.

The times of a shared machine drift by a factor of two, so times of different minutes cannot be
compared. `interleaved` gives each way its turn in every round; a ratio is the median of the rounds'
ratios. NumPy only: peers' Python imports this too.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

__all__ = ["interleaved", "print_table", "ratio", "stopwatch"]


def stopwatch(function: Callable[[], object], *, calls: int = 1) -> Callable[[], float]:
    """Makes a timer of a function.

    Args:
        function: does the work and returns once it is done.
        calls: how often a timing calls it; several for what takes less than some milliseconds.

    Returns:
        Function that returns the seconds of one call, the mean of `calls`.
    """

    def seconds():
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) / calls

    return seconds


def interleaved(
    timers: Mapping[str, Callable[[], float]], *, rounds: int, warm_up: int = 1
) -> dict[str, np.ndarray]:
    """Lets every timer have its turn in each round.

    Args:
        timers: by name, functions that return seconds: `stopwatch`, `peers.Peer.timer`.
        rounds: timings of each.
        warm_up: rounds before these, not counted: they trace, compile and fill caches.

    Returns:
        `[rounds]` float64 seconds by name.
    """
    for _ in range(warm_up):
        for timer in timers.values():
            timer()
    times = [[timer() for timer in timers.values()] for _ in range(rounds)]
    return dict(zip(timers, np.array(times, np.float64).T, strict=True))


def ratio(times: np.ndarray, floor: np.ndarray) -> float:
    """Median over rounds of the ratio to `floor` in the same round.

    Args:
        times: `[rounds]` seconds, as of `interleaved`.
        floor: `[rounds]` seconds of the same rounds.

    Returns:
        float, 1 when both take the same time.
    """
    return float(np.median(times / floor))


def print_table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Prints a Markdown table, ready for docs/benchmarks/.

    Args:
        header: names of the columns.
        rows: cells; numbers are printed with three significant digits.
    """
    header = list(header)
    print(f"| {' | '.join(header)} |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(f"| {' | '.join(_cell(value) for value in row)} |", flush=True)


def _cell(value):
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
