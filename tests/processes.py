"""Commands as a person runs them: processes of this Python, in the root of the tree."""

import contextlib
import os
import pathlib
import subprocess
import sys

__all__ = ["dies_writing", "printed", "run", "started", "unread"]

_ROOT = pathlib.Path(__file__).absolute().parents[1]


def run(*words, cwd=_ROOT, **environment):
    """What has become of `python WORDS`: its `returncode`, `stdout` and `stderr`, as text."""
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def printed(*words, cwd=_ROOT, **environment):
    """What `python WORDS` has printed; it must go well and have no complaints."""
    done = run(*words, cwd=cwd, **environment)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.stderr[-2000:]}{done.stdout[-2000:]}"
    return done.stdout


def unread(*words, **environment):
    """Exit status of `python WORDS` and its stderr, where nobody reads its output."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=_ROOT,
        env={**os.environ, **environment},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    os.close(writer)
    return done.returncode, done.stderr


@contextlib.contextmanager
def started(*words, cwd=_ROOT, **environment):
    """`python WORDS` while it runs, with `stdout` and `stderr` as text; killed in the end."""
    with subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


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
