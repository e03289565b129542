"""A servable saved where the GPU is and loaded on the CPU: the same embeddings."""

import os
import subprocess
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import circle_tf
from benchmarks.gpu import table
from circle_tf import backbones
from circle_tf.serving import servable

_LOAD = """
import sys
import numpy as np, tensorflow as tf
assert not tf.config.list_physical_devices("GPU")
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
np.save(sys.argv[3], served(images=tf.constant(np.load(sys.argv[2])))["embeddings"].numpy())
"""
_ROUNDING = 1e-4  # Of a coordinate of a unit row: sums of some thousand products, many layers deep.
_TF32 = 5e-2


def rows(limits):
    """With products of float32, and as TensorFlow rounds them by default."""
    net, size = ("conv4", 16) if limits.small else ("ResNet50", 112)
    keras.utils.set_random_seed(0)
    pixels = keras.Input((size, size, 3))
    features = backbones.build(net, (size, size, 3))(pixels)
    model = keras.Model(pixels, circle_tf.UnitEmbedding(64)(features))
    images = servable.probe_images((size, size, 3), batch_size=8)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with tempfile.TemporaryDirectory() as folder:
        path = circle_tf.save_servable(model, os.path.join(folder, "1"))
        there = _on_cpu(path, images, folder)
        try:
            for tf32, limit in ((False, _ROUNDING), (True, _TF32)):
                tf.config.experimental.enable_tensor_float_32_execution(tf32)
                served = tf.saved_model.load(path).signatures["serving_default"]
                here = served(images=tf.constant(images))["embeddings"].numpy()
                yield table.judged(
                    f"{net}: saved and asked here, loaded on the CPU{', TF32' if tf32 else ''}",
                    {"embeddings": float(np.abs(here - there).max())},
                    {"embeddings": limit},
                )
                if not tf.config.list_physical_devices("GPU"):
                    return
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)


def _on_cpu(path, images, folder):
    """Embeddings by a new process that sees no GPU."""
    inputs, outputs = (os.path.join(folder, f"{name}.npy") for name in ("inputs", "outputs"))
    np.save(inputs, images)
    subprocess.run(
        [sys.executable, "-c", _LOAD, path, inputs, outputs],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        check=True,
    )
    return np.load(outputs)
