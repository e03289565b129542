"""Runs what needs PyTorch under the Python of `make bench-peers`, on the same inputs.

A peer's script is a module of this folder that ends in `peers.serve({name: function})`. It stays up
and answers line by line, so that our timings and the peer's take turns:

    with peers.Peer("benchmarks.loss_peers", inputs={"embeddings": z, "labels": ids}) as peer:
        timing.interleaved({"ours": ours, "peer": peer.timer("circle")}, rounds=5)

Both sides import this module, and the peers' Python has no TensorFlow: NumPy only.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping

import numpy as np

__all__ = ["Peer", "find_python", "serve"]

_ROOT = pathlib.Path(__file__).absolute().parents[1]


def find_python() -> str:
    """The Python that has PyTorch.

    Returns:
        Path: `$CIRCLE_TF_PEERS` if set, else that of `.venv-peers`.

    Raises:
        FileNotFoundError: there is none.
    """
    python = os.environ.get("CIRCLE_TF_PEERS", str(_ROOT / ".venv-peers" / "bin" / "python"))
    if not os.path.exists(python):
        raise FileNotFoundError(
            f"No Python with PyTorch at {python}: run make bench-peers, "
            "or set CIRCLE_TF_PEERS to a Python that has what requirements-peers.lock lists."
        )
    return python


class Peer:
    """A peer's script, running.

    Args:
        module: dotted name of the script, which calls `serve`.
        inputs: arrays by name that the script's functions get.

    Raises:
        FileNotFoundError: see `find_python`.
    """

    def __init__(self, module: str, *, inputs: Mapping[str, np.ndarray] | None = None):
        self._module, python = module, find_python()
        self._folder = tempfile.TemporaryDirectory()
        path = os.path.join(self._folder.name, "inputs.npz")
        np.savez(path, **(inputs or {}))
        self._process = subprocess.Popen(
            [python, "-m", module, path],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, function: str, **arguments) -> object:
        """Calls a function of the script.

        Args:
            function: its name in `serve`.
            **arguments: what JSON can hold.

        Returns:
            What it returned, by way of JSON.

        Raises:
            RuntimeError: the script failed; its own error is on standard error.
        """
        try:
            print(json.dumps([function, arguments]), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise RuntimeError(
                f"{self._module} failed at {function}({arguments}) with exit code "
                f"{self._process.wait()}; its error is above."
            )
        return json.loads(answer)

    def timer(self, function: str, **arguments) -> Callable[[], float]:
        """Makes a timer, as for `timing.interleaved`, of a function that returns seconds."""
        return lambda: float(self.ask(function, **arguments))

    def close(self) -> None:
        """Ends the script."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def serve(functions: Mapping[str, Callable]) -> None:
    """Answers a `Peer` until it is closed; the last line of a peer's script.

    Args:
        functions: by name, `function(inputs, **arguments)` with `inputs` the arrays by name;
            they return what JSON can hold.
    """
    # What libraries print must not end up among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    with np.load(sys.argv[1]) as stored:
        inputs = dict(stored)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(functions[name](inputs, **arguments)), file=answers, flush=True)
