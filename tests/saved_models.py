"""SavedModels for the export tests: right ones, and ones with a known fault."""

import json

import keras
import numpy as np
import tensorflow as tf

from circle_tf import layers

SHAPE = (8, 8, 1)
IMAGES = np.random.default_rng(0).integers(0, 256, (17, *SHAPE)).astype(np.float32)


def embedding_model(*, seed=0, width=6):
    """Pixels -> Rescaling, convolution, dropout, unit embedding."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    pixels = keras.Input(SHAPE)
    maps = keras.layers.Rescaling(1 / 255)(pixels)
    maps = keras.layers.Conv2D(4, 3, activation="relu")(maps)
    features = keras.layers.Dropout(0.5)(keras.layers.Flatten()(maps))
    return keras.Model(pixels, layers.UnitEmbedding(width)(features), name="tiny")


def finished_run(workdir, *, model=None):
    """A workdir as training leaves it."""
    workdir.mkdir()
    (model or embedding_model()).save(workdir / "model.keras")
    (workdir / "config.json").write_text(json.dumps({"steps": 7}))
    record = {
        "step": 7,
        "config_name": "digits",
        "image_shape": list(SHAPE),
        "embedding_dim": 6,
        "metrics": {"recall_at_1": 0.5},
        "versions": {"keras": keras.__version__},
    }
    (workdir / "run.json").write_text(json.dumps(record))
    return workdir


def save_embedder(path, embed, *, guard_shape=True, guard_empty=True):
    """Saves `embed`, a function of a batch of images, with the guards but for those left out."""
    module = tf.Module()
    module.variables_kept = []

    def serve(images):
        if guard_shape:
            images = tf.ensure_shape(images, [None, *SHAPE])
        if guard_empty:
            not_empty = tf.debugging.Assert(tf.shape(images)[0] > 0, ["empty"])
            with tf.control_dependencies([not_empty]):
                images = tf.identity(images)
        embeddings = embed(images)
        return {"embeddings": tf.ensure_shape(embeddings, [None, embeddings.shape[1]])}

    spec = tf.TensorSpec((None, *SHAPE), tf.float32, name="images")
    signature = tf.function(serve, input_signature=[spec]).get_concrete_function()
    module.variables_kept = list(signature.variables)
    tf.saved_model.save(module, str(path), signatures={"serving_default": signature})
    return str(path)


def unit_pixels(images):
    """Images as unit vectors: the simplest embedding."""
    return tf.math.l2_normalize(tf.reshape(images, [-1, int(np.prod(SHAPE))]), axis=1)
