"""A server of a model in a process of its own, as benchmarks ask it. No flags here."""

import contextlib
import os
import re
import subprocess
import sys

__all__ = ["serving"]


@contextlib.contextmanager
def serving(path):
    """Starts a server of the newest version; yields (process id, name, gRPC, REST address)."""
    base_path, name = os.path.split(os.path.dirname(os.path.abspath(path)))
    command = [sys.executable, "-m", "export.serve", f"--model_name={name}"]
    command += [f"--model_base_path={base_path}/{name}", "--grpc_port=0", "--rest_port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while not ("REST" in said and "Serving" in said):
                said += (line := process.stdout.readline())
                assert line, f"the server does not start: {said}"
            found = [re.search(r, said)[1] for r in (r"gRPC  (\S+)", r"REST  (http://[^/]+)")]
            yield process.pid, name, *found
        finally:
            process.terminate()
            process.communicate()  # It tells of its end: somebody must read that.
