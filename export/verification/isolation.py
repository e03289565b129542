"""Runs `export.verification.session_checks` in a process of its own, which may die."""

import json
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np

__all__ = ["session_events"]


def session_events(path, request, *, timeout):
    """What the checks in a C++ session report.

    Args:
        path: directory of the SavedModel.
        request: see `export.verification.session_checks.run`.
        timeout: seconds.

    Returns:
        `(events, end)`: list of dicts as reported, and how the process ended if not well (str).
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        arrays, results = os.path.join(folder, "request.npz"), os.path.join(folder, "results.jsonl")
        np.savez(arrays, **request)
        command = [
            sys.executable,
            "-m",
            "export.verification.session_checks",
            path,
            arrays,
            results,
        ]
        try:
            done = subprocess.run(
                command, env=_environment(), capture_output=True, text=True, timeout=timeout
            )
            end = None if done.returncode == 0 else _end_of(done)
        except subprocess.TimeoutExpired:
            end = f"no answer within {timeout} s"
        events = []
        if os.path.exists(results):
            with open(results, encoding="utf-8") as lines:
                events = [json.loads(line) for line in lines]
        return events, end


def _environment():
    """That of this process, but on the CPU: no GPU's rounding, nor need of its memory."""
    code = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    return {**os.environ, **quiet, "CUDA_VISIBLE_DEVICES": "-1", "PYTHONPATH": code}


def _end_of(process):
    """How a process came to its end, in a line."""
    code = process.returncode
    how = f"with status {code}"
    if code < 0:
        how = f"by {signal.Signals(-code).name}; TF Serving would die of it as well"
    lines = process.stderr.strip().splitlines()
    # A failed CHECK prints its reason and then a stack trace.
    said = [line for line in lines if "Check failed" in line] or lines[-1:]
    return f"the process ended {how}" + "".join(f" ({line.strip()[:300]})" for line in said[:1])
