"""Starts several workers on this machine, to try out what a cluster will do.

    python -m trainers.launch --workers=2 --config=configs/glyphs.py --workdir=runs/glyphs

Options that are not the launcher's own go to trainers.train. Shown are the chief's output, and of
the other workers only errors. SIGTERM and SIGINT (Ctrl-C) are passed on: the workers save and end
with status 75. When a worker fails, the others are ended, and the launcher exits with the status of
the first that failed (128 + signal if killed).

On a real cluster start `python -m trainers.train --config.strategy=multi_worker ...` once per
machine, with the same options and TF_CONFIG={"cluster": {"worker": ["host0:12345",
"host1:12345"]}, "task": {"type": "worker", "index": 0}}: the same list everywhere, and the
machine's own index. The workdir must be on a disk that all share. See docs/distributed-training.md.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from absl import app, flags

from circle_tf.utils import command_lines, quiet
from trainers.distributed import cluster, preemption

__all__ = ["Worker", "free_ports", "launch"]

_WORKERS = flags.DEFINE_integer("workers", 2, "Worker processes.", lower_bound=1)
_DEVICES = flags.DEFINE_integer(
    "devices_per_worker", 1, "Devices of each worker; logical CPUs without GPUs.", lower_bound=1
)

_GRACE = 20  # seconds in which workers notice by themselves that another one has failed
_POLL = 0.1


def main(argv):
    """Launches, and exits as the workers do."""
    arguments = [argument for argument in argv[1:] if argument != "--"]
    if _WORKERS.value > 1 or _DEVICES.value > 1:
        arguments += ["--config.strategy=multi_worker"]
    arguments += [f"--config.devices={_DEVICES.value}"]
    command = [sys.executable, "-m", "trainers.train", *arguments]
    status = launch(command, workers=_WORKERS.value)
    if status == preemption.STATUS:
        again = command_lines.python_module("trainers.launch", *sys.argv[1:])
        print(f"Go on: {again}", file=sys.stderr)
    sys.exit(status)


def launch(command, *, workers):
    """Runs a command as several workers and waits for them.

    Args:
        command: list of str, the same for each; TF_CONFIG tells them apart.
        workers: int.

    Returns:
        int, 0, or the status of the first worker that failed.

    Raises:
        BrokenPipeError: nobody reads the output any more; the workers are ended.
    """
    addresses = [f"localhost:{port}" for port in free_ports(workers)]
    started = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, lambda number, frame: _send(started, number))
    try:
        for index in range(workers):
            environment = {"TF_CONFIG": cluster.tf_config(addresses, index=index)}
            started.append(Worker(command, index=index, environment=environment))
        return _wait(started)
    finally:
        _send(started, signal.SIGKILL)
        for worker in started:
            worker.close()
        for number, handler in before.items():
            signal.signal(number, handler)


class Worker:
    """A process whose output is shown line by line, with its number before each line.

    Args:
        command: list of str.
        index: int; of worker 0 everything is shown, of the others what goes to stderr.
        environment: mapping, added to that of this process.
    """

    def __init__(self, command, *, index, environment):
        self.index, self.process = (
            index,
            subprocess.Popen(
                command,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if index == 0 else subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Signals of the terminal come from the launcher alone.
            ),
        )
        self.is_unread = False  # Nobody reads what is shown.
        streams = [(self.process.stdout, sys.stdout), (self.process.stderr, sys.stderr)]
        self._readers = [
            threading.Thread(target=self._show, args=pair, daemon=True)
            for pair in streams
            if pair[0] is not None
        ]
        for reader in self._readers:
            reader.start()

    def close(self):
        """Waits for the process and shows the rest of its output."""
        self.process.wait()
        for reader in self._readers:
            reader.join(timeout=5)

    @property
    def status(self):
        """Exit status as a shell has it, None while it runs."""
        code = self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def _show(self, stream, target):
        with stream:
            try:
                for line in stream:
                    text = line.decode("utf-8", "replace").rstrip("\n")
                    # One write per line: lines of several workers do not mix.
                    target.write(f"[{self.index}] {text}\n")
                    target.flush()
            except BrokenPipeError:  # For `launch`: a thread can end itself only.
                self.is_unread = True


def free_ports(count):
    """Ports of the loopback interface that are free now.

    Args:
        count: int.

    Returns:
        list of ints, all different.

    Example:
        >>> len(set(free_ports(3)))
        3
    """
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait(workers):
    """Waits for all; after a failure the others get a while to end by themselves."""
    failed, deadline = None, None
    while any(worker.status is None for worker in workers):
        time.sleep(_POLL)
        if any(worker.is_unread for worker in workers):
            raise BrokenPipeError("Nobody reads the output of the workers.")
        failed = failed or next((worker for worker in workers if worker.status), None)
        if failed and deadline is None:
            deadline = time.monotonic() + _GRACE
        if deadline and time.monotonic() > deadline:
            _send(workers, signal.SIGKILL)
    failed = failed or next((worker for worker in workers if worker.status), None)
    if failed is None:
        return 0
    print(f"Worker {failed.index} ended with status {failed.status}.", file=sys.stderr)
    return failed.status


def _send(workers, number):
    for worker in workers:
        if worker.status is None:
            worker.process.send_signal(number)


if __name__ == "__main__":
    with quiet.unread_output():
        app.run(
            main,
            argv=command_lines.given(),
            flags_parser=lambda args: flags.FLAGS(args, known_only=True),
        )
