"""Programs that are killed at a chosen moment, for the tests of restarts."""

__all__ = ["dies_writing"]


def dies_writing(step):
    """`python -c` text that trains as `trainers.train` does, until SIGKILL in mid checkpoint.

    It dies when the data of the checkpoint of `step` has its name and the index has not.
    """
    return f"""
import os, signal
from trainers.training import checkpoints
from trainers.cli import commands
from trainers import train
sync = checkpoints._sync
def die(path):
    if path.endswith("ckpt-{step}.index"):
        os.kill(os.getpid(), signal.SIGKILL)
    sync(path)
checkpoints._sync = die
commands.run(train.main)
"""
