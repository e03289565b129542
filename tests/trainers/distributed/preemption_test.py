"""What a run that is told to stop does with the signals."""

import signal
import types

import pytest

from tests import processes
from trainers.distributed import preemption

ALONE = types.SimpleNamespace(cluster=types.SimpleNamespace(workers=("localhost",)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_handlers_come_back(number):
    before = signal.getsignal(number)
    watch = preemption.Watch(ALONE)
    with watch.installed():
        assert not watch.must_stop(1)
        signal.raise_signal(number)
        assert watch.must_stop(1)
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_the_process_at_once():
    done = processes.run(
        "-c",
        "import os, signal, types\n"
        "from trainers.distributed import preemption\n"
        "alone = types.SimpleNamespace(cluster=types.SimpleNamespace(workers=('localhost',)))\n"
        "with preemption.Watch(alone).installed():\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('is never printed', flush=True)\n",
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "goes on\n")
    assert "Ctrl-C once more" in done.stderr
