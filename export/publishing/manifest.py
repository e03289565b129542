"""The manifest of a published version: where it comes from and what was found out about it."""

import hashlib
import json
import os

import keras
import numpy as np
import tensorflow as tf

from circle_tf.serving import graph_checks
from circle_tf.serving.gallery import embedder_fingerprint
from circle_tf.utils import image_files
from export.saved_model import contents as contents_of
from export.verification import checks

__all__ = ["PATH", "describe", "fingerprint", "write"]

PATH = contents_of.MANIFEST


def describe(path, *, run, version, verified, contents, model, thresholds, variants=None):
    """The manifest of a SavedModel.

    Args:
        path: directory of the SavedModel.
        run: runs.Run it was made from.
        version: int.
        verified: checks.Verification.
        contents: contents.Contents it was made with.
        model: the run's model.
        thresholds: dict of decision to the threshold that was chosen, and what was found about it.
        variants: dict, what was found out about other forms of the model.

    Returns:
        dict fit for JSON.
    """
    graph, signatures = checks.read_graph(path)
    class_names = run.class_names()  # Of the columns of class_scores.
    return {
        "version": version,
        "fingerprint": fingerprint(path),
        "model_fingerprint": embedder_fingerprint(model),
        "gallery": _describe_gallery(contents),
        "k": contents.k,
        "classes": None if class_names is None else class_names.tolist(),
        "files": _sums(path),
        "weights": contents.weights,
        "xla": contents.jit_compile,
        "limits": {
            "max_batch_size": contents.max_batch_size,
            "max_pixels": contents.max_pixels,
        },
        "variants": variants or {},
        "signatures": {
            name: checks.describe(signature) for name, signature in sorted(signatures.items())
        },
        "preprocessing": {
            "pixels": "raw, 0..255; scaling is inside the model",
            "files": f"{', '.join(image_files.FORMATS)} (JPEG XL not before TensorFlow 2.21); the "
            "first frame of a GIF; grey is 0.299 R + 0.587 G + 0.114 B; "
            "turned as EXIF notes, transparency dropped; bilinear with antialias to the image "
            "shape, rounded",
            "image_shape": list(run.image_shape or model.input_shape[1:]),
        },
        "embeddings": "rows of length 1: the dot product is the cosine",
        "training": {
            "step": run.record.get("step"),
            "config_name": run.record.get("config_name"),
            "config": run.config,
            "versions": run.record.get("versions", {}),
        },
        "metrics": run.record.get("metrics", {}),
        "decision": run.decision(),
        "thresholds": {
            name: found
            for name, found in thresholds.items()
            if getattr(contents, f"{name}_threshold") is not None
        },
        "verified": {check.name: check.seen for check in verified.checks},
        "parity": verified.parity,
        "operations": sorted(_operations(graph, signatures)),
        "exported_with": {"tensorflow": tf.__version__, "keras": keras.__version__},
    }


def _describe_gallery(contents):
    gallery = contents.gallery
    if gallery is None:
        return None
    small = gallery.thumbnails or []
    return {
        "rows": len(gallery),
        "dim": gallery.dim,
        "ids": "int64" if gallery.ids.dtype.kind == "i" else "string",
        "classes": None if gallery.classes is None else len(np.unique(gallery.classes)),
        "k": contents.k,
        "thumbnails": sum(bool(content) for content in small),
        "thumbnail_bytes": sum(len(content) for content in small),
        "source_fingerprint": gallery.source,
    }


def _sums(path):
    """sha256 of every file but the manifest."""
    sums = {}
    for where, _, names in os.walk(path):
        for name in names:
            file = os.path.join(where, name)
            with open(file, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            sums[os.path.relpath(file, path)] = digest
    return {name: sums[name] for name in sorted(sums) if name != PATH}


def _operations(graph, signatures):
    """The kinds of operations a server must know."""
    outputs = [tensor.name for s in signatures.values() for tensor in s.outputs.values()]
    return {node.op for node in graph_checks.served_nodes(graph, outputs)}


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
