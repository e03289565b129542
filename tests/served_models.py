"""SavedModels with many signatures, and a configuration that serves them: for conformance tests.

To run these tests against a real TF Serving:

    python -m tests.served_models /tmp/conformance
    tensorflow_model_server --port=8500 --rest_api_port=8501 \
        --model_config_file=/tmp/conformance/models.config \
        --allow_version_labels_for_unavailable_models=true
    pytest tests/export/conformance_test.py --target=localhost:8500,localhost:8501 \
        --target_models=/tmp/conformance
"""

import os
import sys

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from tests import saved_models

DIMENSION = int(np.prod(saved_models.SHAPE))


def save_all(folder):
    """Writes all models and their models.config; returns the folder as str."""
    folder = os.path.abspath(os.fspath(folder))
    for version in (1, 2):
        save_signatures(f"{folder}/tiny/{version}", shift=version)
    save_examples(f"{folder}/examples/1")
    with open(f"{folder}/models.config", "w", encoding="utf-8") as file:
        file.write(text_format.MessageToString(config(folder)))
    return folder


def config(folder):
    """The configuration that serves them, as `ModelServerConfig`."""
    found = model_server_config_pb2.ModelServerConfig()
    tiny = found.model_config_list.config.add(name="tiny", base_path=f"{folder}/tiny")
    tiny.model_version_policy.specific.versions.extend([1, 2])
    tiny.version_labels.update({"stable": 1, "canary": 2})
    found.model_config_list.config.add(name="examples", base_path=f"{folder}/examples")
    for model in found.model_config_list.config:
        model.model_platform = "tensorflow"
    return found


def save_signatures(path, *, shift=0):
    """A SavedModel whose embeddings are the pixels plus `shift`, as unit vectors."""
    module = tf.Module()
    module.shift = tf.Variable(float(shift))
    signatures = {name: make(module) for name, make in _SIGNATURES.items()}
    tf.saved_model.save(module, str(path), signatures=signatures)
    return str(path)


def embedded(images, *, shift):
    """What `save_signatures` saves, in NumPy."""
    rows = images.reshape(len(images), -1) + shift
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _concrete(serve, **inputs):
    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]
    return tf.function(serve, input_signature=specs).get_concrete_function()


def _embed(module, images):
    images = tf.ensure_shape(images, [None, *saved_models.SHAPE])
    check = tf.debugging.Assert(tf.shape(images)[0] > 0, ["The batch of images is empty"])
    with tf.control_dependencies([check]):
        return saved_models.unit_pixels(images + module.shift)


def _serving_default(module):
    def serve(images):
        return {"embeddings": _embed(module, images)}

    return _concrete(serve, images=([None, *saved_models.SHAPE], tf.float32))


def _serving_bytes(module):
    def decode(data):
        image = tf.io.decode_image(data, channels=1, expand_animations=False)
        return tf.cast(tf.ensure_shape(image, saved_models.SHAPE), tf.float32)

    def serve(image_bytes):
        images = tf.map_fn(decode, image_bytes, fn_output_signature=tf.float32)
        return {"embeddings": _embed(module, images)}

    return _concrete(serve, image_bytes=([None], tf.string))


def _similarity(module):
    def serve(left, right):
        return {"cosines": tf.reduce_sum(left * right, axis=1) + 0 * module.shift}

    pair = ([None, 2], tf.float32)
    return _concrete(serve, left=pair, right=pair)


def _types(module):
    def serve(numbers, names, flags):
        return {
            "doubled": numbers * 2,
            "names": tf.strings.join([names, "!"]),
            "names_bytes": names,
            "negated": tf.logical_not(flags),
            "halves": tf.cast(numbers, tf.float32) / 2 + 0 * module.shift,
        }

    return _concrete(
        serve, numbers=([None], tf.int64), names=([None], tf.string), flags=([None], tf.bool)
    )


def _classify(module):
    def serve(inputs):
        lengths = tf.cast(tf.strings.length(inputs), tf.float32) + 0 * module.shift
        classes = tf.broadcast_to([["a", "b"]], [tf.size(inputs), 2])
        return {"classes": classes, "scores": tf.stack([lengths, -lengths], axis=1)}

    return _concrete(serve, inputs=([None], tf.string))


def _regress(module):
    def serve(inputs):
        return {"outputs": tf.cast(tf.strings.length(inputs), tf.float32) + 0 * module.shift}

    return _concrete(serve, inputs=([None], tf.string))


def _parse(module):
    def serve(examples):
        features = {"a": tf.io.FixedLenFeature([], tf.int64)}
        found = tf.io.parse_example(examples, features)["a"]
        return {"doubled": 2 * found + 0 * tf.cast(module.shift, tf.int64)}

    return _concrete(serve, examples=([None], tf.string))


_SIGNATURES = {
    "serving_default": _serving_default,
    "serving_bytes": _serving_bytes,
    "similarity": _similarity,
    "types": _types,
    "classify": _classify,
    "regress": _regress,
    "parse": _parse,
}


def save_compiled(path):
    """A SavedModel of which one signature calls a function that XLA must compile."""

    @tf.function(jit_compile=True)
    def double(values):
        return values * 2

    spec = ([None], tf.float32)
    signatures = {
        "doubled": _concrete(lambda values: {"doubled": double(values)}, values=spec),
        "halved": _concrete(lambda values: {"halved": values / 2}, values=spec),
    }
    tf.saved_model.save(tf.Module(), str(path), signatures=signatures)
    return str(path)


def save_examples(path):
    """A graph of TensorFlow 1 with two signatures on one input, as MultiInference wants it."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        inputs = v1.placeholder(tf.string, [None], name="inputs")
        lengths = tf.cast(tf.strings.length(inputs), tf.float32)
        scores = tf.stack([lengths, -lengths], axis=1)
        classes = tf.broadcast_to([["a", "b"]], [tf.size(inputs), 2])
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map={
                "classify": v1.saved_model.classification_signature_def(inputs, classes, scores),
                "regress": v1.saved_model.regression_signature_def(inputs, lengths),
            },
        )
        builder.save()
    return str(path)


if __name__ == "__main__":
    print(save_all(sys.argv[1]))
