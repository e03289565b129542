"""Other forms of a published model: LiteRT and ONNX, each tried by running it."""

import contextlib
import functools
import importlib
import os
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from circle_tf.evaluation import retrieval
from circle_tf.serving import servable, weights
from circle_tf.utils import errors, quiet
from export.cli import console
from export.publishing import gallery_sources
from export.saved_model import session

__all__ = ["LITE", "LOWEST_COSINE", "check", "make", "report"]

LITE = ("float32", "float16", "int8")
LOWEST_COSINE = {"float32": 0.9999, "float16": 0.999, "int8": 0.9, "onnx": 0.9999}
_REPRESENTATIVE = 128  # Images that int8's ranges are taken from.
_COMPARED = 64  # Random images to compare on, where a run kept no examples.
_OPSET = 18


def make(path, *, run, model, lite=(), onnx=()):
    """Converts the model and writes the results into a SavedModel that is not published yet.

    Args:
        path: directory of the SavedModel.
        run: runs.Run, for the representative set.
        model: the run's model.
        lite: kinds, of `LITE`.
        onnx: signatures; ONNX can hold serving_default.

    Returns:
        dict of variant to its file.

    Raises:
        console.ExportError: an unknown kind, or it cannot be converted.
    """
    check(lite=lite, onnx=onnx)
    served = weights.as_float32(model)
    images = _examples(run, served)
    made = {}
    for kind in lite:
        made[f"lite_{kind}"] = _write(path, f"model_{kind}.tflite", _lite(served, kind, images))
    if onnx:
        made["onnx"] = _write(path, "model.onnx", _onnx(served, images.shape[1:]))
    return made


def check(*, lite, onnx):
    """Refuses what cannot be made, before anything is.

    Args:
        lite: kinds of LiteRT models.
        onnx: signatures of ONNX models.

    Raises:
        console.ExportError: an unknown kind, or a signature that ONNX cannot hold.
    """
    if unknown := sorted(set(lite) - set(LITE)):
        raise console.ExportError(f"--lite takes {', '.join(LITE)}; found {', '.join(unknown)}.")
    if others := sorted(set(onnx) - {"serving_default"}):
        raise console.ExportError(
            f"--onnx={','.join(others)}: of the signatures only serving_default, from pixels, can "
            "be converted. ONNX cannot decode image files, and what tf2onnx makes of them is not "
            "valid."
        )


def report(path, *, run, model, made):
    """Runs the SavedModel and its variants on the run's held-out classes.

    Args:
        path: directory of the SavedModel.
        run: runs.Run.
        model: the run's model, to compare with.
        made: dict of variant to its file, from `make`.

    Returns:
        dict of variant to `bytes`, `cosine` and `lowest_cosine` to the model, `recall_at_1`,
        leave-one-out over the held-out examples (None if the run kept none, or of each class one).

    Raises:
        console.ExportError: a variant does not run, or its embeddings are other ones.
    """
    served = weights.as_float32(model)
    images = _examples(run, served)
    held_out = run.held_out()
    labels = None if held_out is None else held_out.labels
    if labels is not None and len(np.unique(labels)) == len(labels):
        labels = None  # Nothing to be found.
    reference = gallery_sources.embed(served, images)
    found = {"reference": _facts(reference, reference, labels, 4 * served.count_params())}
    with session.SavedModelSession(path) as opened:
        answers = _in_batches(lambda batch: opened.run({"images": batch})["embeddings"], images)
    size = sum(os.path.getsize(os.path.join(w, n)) for w, _, ns in os.walk(path) for n in ns)
    size -= sum(os.path.getsize(file) for file in made.values())
    found["saved_model"] = _facts(answers, reference, labels, size)
    for name, file in made.items():
        run_variant = _onnx_runner(file) if name == "onnx" else _lite_runner(file)
        with _explained(name):
            answers = _in_batches(run_variant, images)
        found[name] = _facts(answers, reference, labels, os.path.getsize(file))
        lowest = LOWEST_COSINE[name.removeprefix("lite_")]
        if not found[name]["cosine"] >= lowest:
            raise console.ExportError(
                f"{name} embeds otherwise than the model: cosine {found[name]['cosine']:.4f} on "
                f"average, {lowest} are wanted. Nothing was published."
            )
    return found


def _facts(embeddings, reference, labels, size):
    unit = [e / np.linalg.norm(e, axis=1, keepdims=True) for e in (embeddings, reference)]
    cosines = np.sum(unit[0] * unit[1], axis=1)
    recall = None if labels is None else retrieval.recall_at_k(embeddings, labels, 1)
    return {
        "bytes": int(size),
        "cosine": float(np.mean(cosines)),
        "lowest_cosine": float(np.min(cosines)),
        "recall_at_1": recall,
    }


def _examples(run, model):
    """Held-out images of the run, or random ones."""
    held_out = run.held_out()
    if held_out is not None:
        return held_out.images.astype(np.float32)
    shape = run.image_shape or model.input_shape[1:]
    return servable.probe_images(shape, batch_size=_COMPARED)


def _write(path, name, content):
    file = os.path.join(path, "assets.extra", name)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    with open(file, "wb") as stream:
        stream.write(content)
    return file


def _in_batches(run, images, size=16):
    return np.concatenate([run(images[n : n + size]) for n in range(0, len(images), size)])


def _lite(model, kind, images):
    """The bytes of a LiteRT model; inputs and outputs are float32 in every kind."""
    with tempfile.TemporaryDirectory() as folder, _explained(f"lite_{kind}"):
        path = servable.save_servable(
            model, os.path.join(folder, "1"), image_shape=images.shape[1:]
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(path)
        if kind != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if kind == "int8":
            rows = np.linspace(0, len(images) - 1, min(_REPRESENTATIVE, len(images))).astype(int)
            converter.representative_dataset = lambda: ([images[row][None]] for row in rows)
        with quiet.stderr_kept_back():
            return converter.convert()


def _lite_runner(file):
    with warnings.catch_warnings():
        # It is to move to the package ai-edge-litert; TF 2.21 still has it.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        with quiet.stderr_kept_back():
            interpreter = tf.lite.Interpreter(model_path=file)
            interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=images)["embeddings"]


def _onnx(model, image_shape):
    """The bytes of an ONNX model of `serving_default`; guards are left out, ONNX has none.

    Image files cannot be decoded there: what tf2onnx makes of serving_bytes is not valid.
    """
    tf2onnx = _convert_package("tf2onnx")
    spec = [tf.TensorSpec([None, *image_shape], tf.float32, name="images")]

    @functools.partial(tf.function, input_signature=spec)
    def serve(images):
        return {"embeddings": tf.nest.flatten(model(images, training=False))[0]}

    with _explained("onnx"):
        converted, _ = tf2onnx.convert.from_function(serve, input_signature=spec, opset=_OPSET)
        return converted.SerializeToString()


def _onnx_runner(file):
    onnxruntime = _convert_package("onnxruntime")
    opened = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (given,) = opened.get_inputs()
    return lambda images: opened.run(None, {given.name: images})[0]


def _convert_package(name):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise console.ExportError(
            f"--onnx needs {name}: pip install 'circle-tf[convert]' ({error})."
        ) from error


@contextlib.contextmanager
def _explained(name):
    try:
        yield
    except console.ExportError:
        raise
    except Exception as error:  # Converters raise what they like.
        raise console.ExportError(
            f"{name}: the model cannot be converted ({errors.reason(error)})."
        ) from error
