"""The checks of a SavedModel in a C++ session; run in a process of their own, which may die.

    python -m export.verification.session_checks SAVED_MODEL REQUEST.npz RESULTS.jsonl

`run_in_process` starts this and reads its results. It imports no circle_tf and no Keras, so a model
that needs them to load is found out.
"""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from circle_tf.utils import errors
from export.saved_model import session, warmup

__all__ = ["BATCH_SIZES", "PARITY", "checks", "run", "run_in_process"]

BATCH_SIZES = (1, 3, 17)
PARITY = 1e-5  # Largest difference to the Python model in any component.
_UNIT = 1e-4
_BATCH_MATES = 1e-4  # Rounding differs with the batch size; batch statistics differ by far more.


class CheckFailed(Exception):
    """A check found something wrong; the message says what was seen."""


def run_in_process(path, request, *, timeout):
    """What `run` reports in a process of its own.

    Args:
        path: directory of the SavedModel.
        request: see `run`.
        timeout: seconds.

    Returns:
        `(events, end)`: list of dicts as reported, and how the process ended if not well (str).
    """
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        arrays, results = os.path.join(folder, "request.npz"), os.path.join(folder, "results.jsonl")
        np.savez(arrays, **request)
        command = [sys.executable, "-m", __name__, path, arrays, results]
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


def run(path, request, *, report):
    """Runs all checks that the request allows.

    Args:
        path: directory of the SavedModel.
        request: dict with `images` `[17, H, W, C]` float32 and optionally, for each B of
            BATCH_SIZES, `expected_B` `[B, D]`: what the Python model answers to the first B; and
            `probes`, as `export.verification.probes.probes` makes them.
        report: `fn(dict)`, called with `{"started": name}` before each check and with
            `{"name", "passed", "seen", "value"}` after it.
    """
    opened = _report_one("opens", functools.partial(_open, path), report)
    if opened is None:
        return
    with opened:
        for name, check in checks(opened, request).items():
            _report_one(name, check, report)


def checks(opened, request):
    """The checks by name, in order: those that might kill the process come last.

    Args:
        opened: SavedModelSession.
        request: see `run`.

    Returns:
        dict of name to `fn() -> (what was seen, number or None)`, which raises CheckFailed.
    """
    images = request["images"]
    bad = {
        "empty batch": images[:0],
        "wrong dtype": images.astype(np.float64),
        "wrong height": np.concatenate([images, images[:, :1]], axis=1),
        "wrong width": np.concatenate([images, images[:, :, :1]], axis=2),
        "wrong channels": np.concatenate([images, images[..., :1]], axis=3),
        "rank 5": images[None],
        "rank 3": images[0],
    }
    found = {"embeddings": functools.partial(_embeddings, opened, images)}
    if any(name.startswith("expected") for name in request):
        found["parity"] = functools.partial(_parity, opened, request)
    found["batch mates"] = functools.partial(_batch_mates, opened, images)
    tried = [probe for probe in request.get("probes", ()) if probe is not None]
    for probe in tried:
        if probe["good"]:
            found[probe["signature"]] = functools.partial(_answers, opened, probe)
    if warmup.exists(opened.path):
        found["warm-up"] = functools.partial(_warm_up, opened)
    for name, batch in bad.items():
        found[f"guard: {name}"] = functools.partial(_guard, opened, {"images": batch})
    for probe in tried:
        for name, inputs in probe["bad"].items():
            signature = probe["signature"]
            found[f"guard: {signature}: {name}"] = functools.partial(
                _guard, opened, inputs, signature=signature
            )
    return found


def _report_one(name, check, report):
    """What the check returns if it passes; opening returns the session itself."""
    report({"started": name})
    try:
        result = check()
    except Exception as error:  # Whatever it is, it is what was seen.
        kind = "" if isinstance(error, CheckFailed) else f"{type(error).__name__}: "
        seen = f"{kind}{error}".strip().splitlines()[0]
        report({"name": name, "passed": False, "seen": seen, "value": None})
        return None
    seen, value = result if isinstance(result, tuple) else ("in a C++ session", None)
    report({"name": name, "passed": True, "seen": seen, "value": value})
    return result


def _open(path):
    return session.SavedModelSession(path)


def _embed(opened, images):
    return opened.run({"images": images})["embeddings"]


def _embeddings(opened, images):
    embeddings = _embed(opened, images)
    if embeddings.dtype != np.float32 or embeddings.ndim != 2 or len(embeddings) != len(images):
        raise CheckFailed(
            f"wanted float32 [{len(images)}, D]; found {embeddings.dtype} {embeddings.shape}"
        )
    lengths = np.linalg.norm(embeddings.astype(np.float64), axis=1)
    off = float(np.abs(lengths - 1).max())
    if not off <= _UNIT:
        raise CheckFailed(f"rows are not of length 1: {lengths.min():.4g} to {lengths.max():.4g}")
    return f"float32 [B, {embeddings.shape[1]}], length 1 within {off:.1e}", off


def _parity(opened, request):
    """Largest difference to the Python model over all batch sizes."""
    differences = {}
    for size in BATCH_SIZES:
        expected = request[f"expected_{size}"]
        found = _embed(opened, request["images"][:size])
        if found.shape != expected.shape:
            raise CheckFailed(f"the model returns {expected.shape}, the session {found.shape}")
        differences[size] = float(np.abs(found - expected).max())
    worst = max(differences.values(), key=lambda d: np.inf if np.isnan(d) else d)
    sizes = ", ".join(map(str, BATCH_SIZES))
    seen = f"largest difference {worst:.1e} over batches {sizes} (allowed {PARITY:.0e})"
    if not worst <= PARITY:
        raise CheckFailed(seen)
    return seen, worst


def _batch_mates(opened, images):
    """An image has one embedding, whatever else is in its batch."""
    alone, together = _embed(opened, images[:1]), _embed(opened, images)[:1]
    worst = float(np.abs(alone - together).max())
    if not worst <= _BATCH_MATES:
        raise CheckFailed(f"an image's embedding changes by {worst:.1e} with its batch")
    return f"an image's embedding does not depend on its batch ({worst:.1e})", worst


def _answers(opened, probe):
    """One signature's answers against the Python model's, batch by batch."""
    name, worst, shapes = probe["signature"], 0.0, {}
    for inputs, expected, decided in probe["good"]:
        found = opened.run(inputs, signature=name)
        if unexpected := expected.keys() - found.keys():
            raise CheckFailed(f"wanted outputs {sorted(expected)}; {sorted(unexpected)} missing")
        for output, values in expected.items():
            worst = max(worst, _difference(output, found[output], values, decided.get(output)))
        shapes = {output: list(values.shape) for output, values in found.items()}
    if not worst <= PARITY:
        raise CheckFailed(f"differs from the Python model by {worst:.1e}")
    shown = ", ".join(f"{output} {shape}" for output, shape in sorted(shapes.items()))
    return f"{shown}; largest difference {worst:.1e}", worst


def _difference(output, found, expected, decided):
    if found.shape != expected.shape:
        raise CheckFailed(f"{output}: wanted shape {expected.shape}, found {found.shape}")
    if found.dtype.kind == "f":
        if found.dtype != np.float32:
            raise CheckFailed(f"{output}: wanted float32, found {found.dtype}")
        difference = float(np.abs(found - expected).max())
        return np.inf if np.isnan(difference) else difference
    if wrong := int(np.sum((found != expected) & decided)):
        raise CheckFailed(f"{output}: {wrong} of {found.size} are not the Python model's")
    return 0.0


def _warm_up(opened):
    """Replays the warm-up requests: one that fails keeps TF Serving from loading the version."""
    count = 0
    for number, request in enumerate(warmup.read(opened.path)):
        try:
            opened.run(request.inputs, signature=request.signature)
        except (KeyError, tf.errors.OpError) as error:
            raise CheckFailed(
                f"request {number} ({request.signature}) fails: {errors.reason(error)}"
            ) from error
        count += 1
    if count > warmup.MOST:
        raise CheckFailed(f"{count} requests; TF Serving takes {warmup.MOST}")
    return f"{count} requests replayed", float(count)


def _guard(opened, inputs, *, signature="serving_default"):
    shape = ", ".join(f"{value.dtype} {list(value.shape)}" for value in inputs.values())
    try:
        answer = opened.run(inputs, signature=signature)
    except tf.errors.InvalidArgumentError:
        return f"{shape} answered INVALID_ARGUMENT", None
    except tf.errors.OpError as error:
        raise CheckFailed(
            f"{shape} answered {type(error).__name__}, not INVALID_ARGUMENT"
        ) from error
    answered = ", ".join(f"{name} {list(value.shape)}" for name, value in answer.items())
    raise CheckFailed(f"{shape} answered with {answered}")


def main(argv):
    """Reads the request, writes one JSON line per event as it happens."""
    _, path, request, results = argv
    with (
        np.load(request, allow_pickle=True) as arrays,
        open(results, "w", encoding="utf-8") as lines,
    ):

        def report(event):
            lines.write(json.dumps(event) + "\n")
            lines.flush()  # What was under way must be known if this process dies.

        run(path, dict(arrays), report=report)


if __name__ == "__main__":
    main(sys.argv)
