"""SIGTERM, Ctrl-C: a run that is told to stop saves first, on all workers after the same step."""

import contextlib
import signal
import sys
import threading

__all__ = ["STATUS", "Preempted", "Watch"]

# EX_TEMPFAIL of sysexits.h: saved, run the same command again.
STATUS = 75
# Steps from one question to all workers to the next; a single process need not ask.
_ASK_EVERY = 5
_SAVING = "Stopping after the next step, which is saved; Ctrl-C once more stops at once, unsaved."


class Preempted(SystemExit):
    """The run was told to stop, has saved, and ends the process with status 75."""

    def __init__(self, step):
        super().__init__(STATUS)
        self.step = step

    def __str__(self):
        return (
            f"Stopped as told after step {self.step}, which is saved. The same command goes on "
            f"from there (exit status {STATUS})."
        )


class Watch:
    """Knows whether this worker or another one was told to stop.

    Args:
        exchange: trainers.distributed.agreement.Exchange.
    """

    def __init__(self, exchange):
        self._exchange, self._told = exchange, False
        self._several = len(exchange.cluster.workers) > 1

    @contextlib.contextmanager
    def installed(self):
        """Within it, SIGTERM and the first SIGINT are noted instead of ending the process at once.

        A second SIGINT, as of Ctrl-C, does end it at once.

        Yields:
            None.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Only the main thread may handle signals.
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def must_stop(self, step):
        """Whether to save and stop now; the same answer on all workers.

        Args:
            step: int, steps done; every worker asks after every step.

        Returns:
            bool.
        """
        if not self._several:
            return self._told
        if step % _ASK_EVERY:
            return False
        return bool(self._exchange.gather(int(self._told)).any())

    def _note(self, number, frame):
        del frame
        self._told = True
        if number == signal.SIGINT:
            # Not KeyboardInterrupt, which would wait for the step or for other workers.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            print(_SAVING, file=sys.stderr, flush=True)
