"""Is a SavedModel fit to be published? Looks at its files, and tries it in a C++ session."""

import dataclasses
import glob
import json
import os
import signal
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from circle_tf import clones, graphs, servable
from export import console, session_checks

__all__ = [
    "Check",
    "Verification",
    "VerificationError",
    "describe",
    "read_graph",
    "verify_servable",
]

_SIGNATURE = "serving_default"
_SIZE_RATIO = 1.02
_SIZE_ALLOWANCE = 64 << 10  # Names and shapes beside the weights; counts in tiny models only.
_TIMEOUT = 600  # Seconds.


class VerificationError(console.ExportError):
    """A SavedModel failed a check; the message says which and what was seen."""


@dataclasses.dataclass(frozen=True)
class Check:
    """One check and its outcome.

    Args:
        name: str.
        passed: bool.
        seen: what was found, for people.
        value: the number behind it, or None.
    """

    name: str
    passed: bool
    seen: str
    value: float | None = None


@dataclasses.dataclass(frozen=True)
class Verification:
    """The checks of one SavedModel, in the order they ran.

    Args:
        checks: tuple of Check.
    """

    checks: tuple[Check, ...]

    @property
    def parity(self):
        """Largest difference to the Python model; None if there was no model to compare with."""
        return next((check.value for check in self.checks if check.name == "parity"), None)

    def failures(self):
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    def summary(self):
        """Lines for people; the guards, which are many, share one."""
        guards = [check for check in self.checks if check.name.startswith("guard: ")]
        refused = ", ".join(check.name.removeprefix("guard: ") for check in guards)
        lines = [f"{check.name:<12} {check.seen}" for check in self.checks if check not in guards]
        return [*lines, f"{'guards':<12} INVALID_ARGUMENT for {refused}"]


def verify_servable(path, *, model=None, timeout=_TIMEOUT):
    """Checks a SavedModel as TF Serving will use it, and refuses it if anything is wrong.

    The files are read first: signature, operations, size. If they are right, the rest runs in a
    C++ session in a process of its own, because a broken model may kill the process it runs in.

    Args:
        path: directory of the SavedModel.
        model: the Keras model it was made from; without it parity and size are not checked.
        timeout: seconds the session may take.

    Returns:
        Verification, all checks passed.

    Raises:
        VerificationError: a check failed.
        console.ExportError: no SavedModel at `path`.
    """
    graph, signatures = read_graph(path)
    checks = [_signature_check(signatures)]
    if checks[0].passed:
        model = clones.as_float32(model) if model is not None else None
        checks += _graph_checks(path, graph, signatures[_SIGNATURE], model)
    if all(check.passed for check in checks):
        request = _request(signatures[_SIGNATURE], model)
        checks += _session_checks(path, request, timeout=timeout)
    verification = Verification(tuple(checks))
    if failures := verification.failures():
        found = "; ".join(f"{check.name}: {check.seen}" for check in failures)
        raise VerificationError(f"{path} must not be served. {found}.")
    return verification


def read_graph(path):
    """Reads what a SavedModel serves.

    Args:
        path: directory of the SavedModel.

    Returns:
        `GraphDef` and dict of name to `SignatureDef`.

    Raises:
        console.ExportError: no SavedModel at `path`, or none to serve.
    """
    file = os.path.join(path, "saved_model.pb")
    if not os.path.isfile(file):
        raise console.ExportError(
            f"There is no SavedModel at {path!r} (no saved_model.pb). Give the directory of a "
            "version, such as models/glyphs/1."
        )
    with open(file, "rb") as stream:
        saved = saved_model_pb2.SavedModel.FromString(stream.read())
    graphs_to_serve = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    if not graphs_to_serve:
        raise console.ExportError(f"The SavedModel {path!r} has no graph with the tag 'serve'.")
    return graphs_to_serve[0].graph_def, dict(graphs_to_serve[0].signature_def)


def _signature_check(signatures):
    """`serving_default` must be images float32 [?, H, W, C] -> embeddings float32 [?, D]."""
    name = "signature"
    if _SIGNATURE not in signatures:
        return Check(name, False, f"no {_SIGNATURE}; found {sorted(signatures) or 'none'}")
    found = describe(signatures[_SIGNATURE])
    inputs, outputs = signatures[_SIGNATURE].inputs, signatures[_SIGNATURE].outputs
    if set(inputs) != {"images"} or set(outputs) != {"embeddings"}:
        return Check(name, False, f"wanted images -> embeddings; found {found}")
    for tensor, rank in ((inputs["images"], 4), (outputs["embeddings"], 2)):
        shape = tf.TensorShape(tensor.tensor_shape)
        fixed = shape.rank == rank and shape[0] is None and shape[1:].is_fully_defined()
        if tensor.dtype != tf.float32.as_datatype_enum or not fixed:
            wanted = "images float32 [?, H, W, C] -> embeddings float32 [?, D]"
            return Check(name, False, f"wanted {wanted}; found {found}")
    return Check(name, True, found)


def describe(signature):
    """A signature in a line.

    Args:
        signature: `SignatureDef`.

    Returns:
        str such as `images float32 [?, 32, 32, 1] -> embeddings float32 [?, 128]`.
    """
    sides = []
    for tensors in (signature.inputs, signature.outputs):
        sides.append(", ".join(_describe_tensor(name, tensors[name]) for name in sorted(tensors)))
    return " -> ".join(sides)


def _describe_tensor(name, tensor):
    shape = ["?" if dim.size < 0 else str(dim.size) for dim in tensor.tensor_shape.dim]
    return f"{name} {tf.as_dtype(tensor.dtype).name} [{', '.join(shape)}]"


def _graph_checks(path, graph, signature, model):
    outputs = [tensor.name for tensor in signature.outputs.values()]
    forbidden = graphs.forbidden_nodes(graph, outputs)
    seen = f"holds {', '.join(forbidden)}" if forbidden else "nothing that belongs to training"
    found = [Check("operations", not forbidden, seen)]
    if model is not None:
        constants = sum(
            node.attr["value"].tensor.ByteSize()
            for node in graphs.served_nodes(graph, outputs)
            if node.op == "Const"
        )
        found.append(_size_check(path, constants, model))
    return found


def _size_check(path, constants, model):
    """Weights must be stored once, be it as variables or as constants of the graph."""
    files = glob.glob(os.path.join(glob.escape(path), "variables", "variables.data-*"))
    stored = constants + sum(os.path.getsize(file) for file in files)
    weights = sum(weight.value.dtype.size * int(np.prod(weight.shape)) for weight in model.weights)
    seen = f"{stored:,} bytes for {weights:,} bytes of weights ({stored / max(weights, 1):.3f} x)"
    allowed = _SIZE_RATIO * weights + _SIZE_ALLOWANCE
    if stored > allowed:
        seen += f", more than {_SIZE_RATIO} x and {_SIZE_ALLOWANCE >> 10} KiB: is anything twice?"
    return Check("size", stored <= allowed, seen, stored)


def _request(signature, model):
    """Probe images, and what the Python model answers to them."""
    shape = [dim.size for dim in signature.inputs["images"].tensor_shape.dim][1:]
    sizes = session_checks.BATCH_SIZES
    images = servable.probe_images(shape, batch_size=max(sizes))
    request = {"images": images}
    if model is not None:
        with tf.device("CPU:0"):  # As the session: a GPU may round to TF32.
            for size in sizes:
                answer = model(tf.constant(images[:size]), training=False)
                request[f"expected_{size}"] = tf.nest.flatten(answer)[0].numpy()
    return request


def _session_checks(path, request, *, timeout):
    """Runs `export.session_checks` in a process of its own and reads what it reports."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        arrays, results = os.path.join(folder, "request.npz"), os.path.join(folder, "results.jsonl")
        np.savez(arrays, **request)
        command = [sys.executable, "-m", "export.session_checks", path, arrays, results]
        try:
            done = subprocess.run(
                command, env=_environment(), capture_output=True, text=True, timeout=timeout
            )
            end = None if done.returncode == 0 else _end_of(done)
        except subprocess.TimeoutExpired:
            end = f"no answer within {timeout} s"
        return _read_results(results, end)


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


def _read_results(file, end):
    """The checks reported in a file; the one that was under way failed if the process died."""
    events = []
    if os.path.exists(file):
        with open(file, encoding="utf-8") as lines:
            events = [json.loads(line) for line in lines]
    found = [Check(**event) for event in events if "name" in event]
    if end is not None:
        started = [event["started"] for event in events if "started" in event]
        under_way = started[-1] if len(started) > len(found) else "session"
        found.append(Check(under_way, False, end))
    return found
