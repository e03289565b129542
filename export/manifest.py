"""The manifest of a published version: where it comes from and what was found out about it."""

import json
import os

import keras
import tensorflow as tf

from circle_tf import graphs
from export import verification

__all__ = ["PATH", "describe", "fingerprint", "write"]

# TF Serving ignores assets.extra, but for warm-up requests; within the version's directory the
# manifest appears, moves and goes with it.
PATH = os.path.join("assets.extra", "manifest.json")


def describe(path, *, run, version, verified):
    """The manifest of a SavedModel.

    Args:
        path: directory of the SavedModel.
        run: runs.Run it was made from.
        version: int.
        verified: verification.Verification.

    Returns:
        dict fit for JSON.
    """
    graph, signatures = verification.read_graph(path)
    return {
        "version": version,
        "fingerprint": fingerprint(path),
        "signatures": {
            name: verification.describe(signature)
            for name, signature in sorted(signatures.items())
            if not name.startswith("__")
        },
        "pixels": "raw, 0..255; scaling is inside the model",
        "embeddings": "rows of length 1: the dot product is the cosine",
        "training": {
            "step": run.record.get("step"),
            "config_name": run.record.get("config_name"),
            "config": run.config,
            "versions": run.record.get("versions", {}),
        },
        "metrics": run.record.get("metrics", {}),
        "verified": {check.name: check.seen for check in verified.checks},
        "parity": verified.parity,
        "operations": sorted(_operations(graph, signatures)),
        "exported_with": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def _operations(graph, signatures):
    """The kinds of operations a server must know."""
    outputs = [tensor.name for s in signatures.values() for tensor in s.outputs.values()]
    return {node.op for node in graphs.served_nodes(graph, outputs)}


def fingerprint(path):
    """What tells a SavedModel from others: equal for exports of equal models.

    Args:
        path: directory of the SavedModel.

    Returns:
        str.
    """
    return tf.saved_model.experimental.read_fingerprint(path).singleprint()


def write(path, manifest):
    """Writes the manifest into a SavedModel that is not published yet.

    Args:
        path: directory of the SavedModel.
        manifest: dict fit for JSON.
    """
    file = os.path.join(path, PATH)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "w", encoding="utf-8") as stream:
        json.dump(manifest, stream, indent=2, sort_keys=True)
        stream.write("\n")
