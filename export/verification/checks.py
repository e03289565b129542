"""Is a SavedModel fit to be published? Looks at its files, and tries it in a C++ session."""

import dataclasses
import glob
import os

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from circle_tf.serving import graph_checks, servable
from circle_tf.serving.weights import served_model
from circle_tf.utils import quiet
from export.cli import console
from export.saved_model.contents import Contents
from export.verification import probes, session_checks

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
_LARGE_CONSTANT = 4096  # Bytes; shapes and guards' messages are smaller.
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
        kinds = dict.fromkeys(check.name.rpartition(": ")[2] for check in guards)
        lines = [f"{check.name:<16} {check.seen}" for check in self.checks if check not in guards]
        answer = f"{len(guards)} bad inputs answered INVALID_ARGUMENT: {', '.join(kinds)}"
        return [*lines, f"{'guards':<16} {answer}"]


def verify_servable(path, *, model=None, contents=None, timeout=_TIMEOUT):
    """Checks a SavedModel as TF Serving will use it, and refuses it if anything is wrong.

    The files are read first: signatures, operations, size. If they are right, the rest runs in a
    C++ session in a process of its own, because a broken model may kill the process it runs in:
    every signature with right inputs and wrong ones, and the warm-up requests.

    Args:
        path: directory of the SavedModel.
        model: the Keras model it was made from; without it parity and size are not checked.
        contents: contents.Contents it was made with; default: the model alone. Ignored without
            `model`.
        timeout: seconds the session may take.

    Returns:
        Verification, all checks passed.

    Raises:
        VerificationError: a check failed.
        console.ExportError: no SavedModel at `path`.
    """
    graph, signatures = read_graph(path)
    checks = [_signature_check(signatures)]
    if model is not None:
        contents = contents or Contents()
        with quiet.stderr_kept_back():  # oneDNN tells of the CPU's lack of half precision.
            model = served_model(model, weights=contents.weights)
    else:
        contents = None
    if checks[0].passed:
        checks += _graph_checks(path, graph, signatures, model, contents)
    if all(check.passed for check in checks):
        request = _request(signatures, model, contents)
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
    served = graphs_to_serve[0].signature_def.items()
    # TensorFlow keeps its initialisation among them, as "__saved_model_init_op".
    signatures = {name: signature for name, signature in served if not name.startswith("__")}
    return graphs_to_serve[0].graph_def, signatures


def _signature_check(signatures):
    """`serving_default` must be images float32 [?, H, W, C] -> embeddings float32 [?, D]."""
    name = "signature"
    if _SIGNATURE not in signatures:
        return Check(name, False, f"no {_SIGNATURE}; found {sorted(signatures) or 'none'}")
    for other, signature in sorted(signatures.items()):
        halves = {
            tf.as_dtype(t.dtype)
            for side in (signature.inputs, signature.outputs)
            for t in side.values()
        } & {tf.float16, tf.bfloat16}
        if halves:
            return Check(
                name, False, f"{other} has tensors REST cannot carry: {describe(signature)}"
            )
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


def _graph_checks(path, graph, signatures, model, contents):
    outputs = [tensor.name for s in signatures.values() for tensor in s.outputs.values()]
    xla = _is_compiled(graph, outputs) if contents is None else contents.jit_compile
    forbidden = graph_checks.forbidden_nodes(graph, outputs, xla=xla)
    seen = "nothing that belongs to training"
    if forbidden:
        seen = f"holds {', '.join(forbidden)}"
    elif xla:
        seen += "; wants a server with --xla_cpu_compilation_enabled=true"
    found = [Check("operations", not forbidden, seen)]
    if model is not None:
        constants = sum(
            node.attr["value"].tensor.ByteSize()
            for node in graph_checks.served_nodes(graph, outputs)
            if node.op == "Const" and node.attr["value"].tensor.ByteSize() >= _LARGE_CONSTANT
        )
        found.append(_size_check(path, constants, contents.size(model)))
    return found


def _is_compiled(graph, outputs):
    """Whether XLA compiles the model, which its publisher then wanted."""
    return any(node.attr["_XlaMustCompile"].b for node in graph_checks.served_nodes(graph, outputs))


def _size_check(path, constants, wanted):
    """Weights must be stored once, be it as variables or as constants of the graph."""
    files = glob.glob(os.path.join(glob.escape(path), "variables", "variables.data-*"))
    stored = constants + sum(os.path.getsize(file) for file in files)
    ratio = stored / max(wanted, 1)
    seen = f"{stored:,} bytes for {wanted:,} bytes of weights and gallery ({ratio:.3f} x)"
    allowed = _SIZE_RATIO * wanted + _SIZE_ALLOWANCE
    if stored > allowed:
        seen += f", more than {_SIZE_RATIO} x and {_SIZE_ALLOWANCE >> 10} KiB: is anything twice?"
    return Check("size", stored <= allowed, seen, stored)


def _request(signatures, model, contents):
    """Probe images, what the Python model answers to them, and how to try other signatures."""
    shape = [dim.size for dim in signatures[_SIGNATURE].inputs["images"].tensor_shape.dim][1:]
    sizes = session_checks.BATCH_SIZES
    images = servable.probe_images(shape, batch_size=max(sizes))
    embeddings = {}
    if model is not None:
        with tf.device("CPU:0"):  # As the session: a GPU may round to TF32.
            for size in sizes:
                answer = model(tf.constant(images[:size]), training=False)
                embeddings[size] = tf.nest.flatten(answer)[0].numpy()
    request = {f"expected_{size}": expected for size, expected in embeddings.items()}
    tried = probes.probes(
        sorted(signatures), images=images, embeddings=embeddings, contents=contents
    )
    # In an array, as np.savez wants it.
    return {"images": images, **request, "probes": np.array([*tried, None], object)}


def _session_checks(path, request, *, timeout):
    """The checks of the session; the one that was under way failed if the process died."""
    events, end = session_checks.run_in_process(path, request, timeout=timeout)
    found = [Check(**event) for event in events if "name" in event]
    if end is not None:
        started = [event["started"] for event in events if "started" in event]
        under_way = started[-1] if len(started) > len(found) else "session"
        found.append(Check(under_way, False, end))
    return found
