"""Writes `everything.keras`, which later versions must load, and what it computes.

    python -m tests.saved.make_saved

Made once, with the version named in `everything.json`, and not again: people have such files.
"""

import json
import pathlib

import keras
import numpy as np

import circle_tf

FOLDER = pathlib.Path(__file__).parent


def inputs():
    """Rows and ids, the same in every version."""
    rows = np.cos(np.arange(320.0)).reshape(32, 10).astype(np.float32)
    return [rows, np.arange(32) % 4]


def build():
    """A model with pair-wise and class-level losses, and each layer that holds one."""
    keras.utils.set_random_seed(0)
    features, ids = keras.Input((10,)), keras.Input((), dtype="int64")
    unit = circle_tf.UnitEmbedding(6, name="unit")(features)
    cosines = circle_tf.CosineClassifier(4, name="cosines")(unit)
    options = {"margin": 0.3, "gamma": 32.0, "as_model_loss": True}
    held = [
        circle_tf.PairwiseCircle(name="pair", **options),
        circle_tf.CircleHead(4, name="head", **options),
        circle_tf.CrossBatchMemory(20, name="memory", **options),
    ]
    outputs = {"unit": unit, "cosines": cosines}
    outputs |= {layer.name: layer((unit, ids)) for layer in held}
    model = circle_tf.EmbeddingModel([features, ids], outputs)
    model.compile(
        "adam",
        loss={
            **dict.fromkeys(outputs),
            "unit": circle_tf.CircleLoss(margin=0.3),
            "cosines": circle_tf.ClassCircleLoss(),
        },
        metrics={"unit": circle_tf.metrics.monitors(margin=0.3)},
        jit_compile=False,
    )
    return model


def main():
    """Trains for two steps, and writes the model and what it computes."""
    model, given = build(), inputs()
    targets = dict.fromkeys(model.output_names, given[1])
    model.fit(given, targets, batch_size=16, shuffle=False, verbose=0)
    model.save(FOLDER / "everything.keras")
    found = model.predict(given, batch_size=32, verbose=0)
    record = {
        "version": circle_tf.__version__,
        "keras": keras.__version__,
        "outputs": {name: np.asarray(value).tolist() for name, value in found.items()},
        "memory_ids": model.get_layer("memory").memory_ids.numpy().tolist(),
        "evaluate": model.evaluate(given, targets, batch_size=32, verbose=0, return_dict=True),
    }
    (FOLDER / "everything.json").write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
