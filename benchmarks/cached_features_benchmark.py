"""What a cache of a frozen backbone's features saves, and what freezing alone does.

    python -m benchmarks.cached_features_benchmark

Times training steps of a backbone with a head on images in memory: the whole trained, the backbone
frozen, and the head alone on cached features; and what filling the cache takes.
"""

import tempfile
import time

import keras
import numpy as np
from absl import app, flags

import circle_tf
from circle_tf import backbones, fine_tuning

_BACKBONE = flags.DEFINE_string("backbone", "ResNet50", "A name of circle_tf.backbones.")
_SIDE = flags.DEFINE_integer("image_size", 224, "Side of the images in pixels.", lower_bound=32)
_IMAGES = flags.DEFINE_integer("images", 1000, "Images, ten of each class.", lower_bound=100)
_BATCH = flags.DEFINE_integer("batch_size", 40, "Images in a step, four of a class.")
_STEPS = flags.DEFINE_integer("steps", 3, "Steps timed over images; over features 100 times.")


class Clock:
    """Seconds that passed, and that processors worked for this process."""

    def __init__(self):
        self._start = time.perf_counter(), time.process_time()

    def read(self):
        """Pair of both since it was made."""
        now = time.perf_counter(), time.process_time()
        return tuple(end - start for end, start in zip(now, self._start, strict=True))


class StepTimes(keras.callbacks.Callback):
    """Mean time of a step but the first, which traces."""

    def on_train_batch_end(self, batch, logs=None):
        """Starts the clock after the first step; its loss is there, so that it is done."""
        if batch == 0:
            self._clock = Clock()
        else:
            self.seconds = tuple(seconds / batch for seconds in self._clock.read())


def step_seconds(inputs, outputs, examples, *, labels, steps, callbacks=()):
    """Mean seconds of a training step of P x K examples, passed and worked."""
    model = circle_tf.EmbeddingModel(inputs, outputs)
    model.compile(keras.optimizers.Adam(1e-3), circle_tf.CircleLoss())
    batches = circle_tf.pk_dataset(
        examples,
        labels,
        classes_per_batch=_BATCH.value // 4,
        examples_per_class=4,
        num_steps=steps + 1,
    )
    times = StepTimes()
    model.fit(batches, shuffle=False, verbose=0, callbacks=[*callbacks, times])
    return times.seconds


def main(argv):
    """Prints a table."""
    del argv
    rng, side = np.random.default_rng(0), _SIDE.value
    images = rng.integers(0, 256, (_IMAGES.value, side, side, 3)).astype(np.uint8)
    labels = np.arange(len(images)) // 10
    keras.utils.set_random_seed(0)
    backbone = backbones.build(_BACKBONE.value, (side, side, 3))
    head = circle_tf.UnitEmbedding(128)(backbone.output)
    frozen = fine_tuning.FineTuning(backbone, unfreeze_from=1)
    whole = {"labels": labels, "steps": _STEPS.value}
    with tempfile.TemporaryDirectory() as folder:
        clock = Clock()
        features = fine_tuning.cache_features(backbone, images, folder, batch_size=_BATCH.value)
        rows = [(f"cache filled, {len(images)} images", clock.read())]
        clock = Clock()
        fine_tuning.cache_features(backbone, images, folder)
        rows.append(("cache read again", clock.read()))
    cached = step_seconds(backbone.output, head, features, labels=labels, steps=100 * _STEPS.value)
    still = step_seconds(backbone.input, head, images, callbacks=[frozen], **whole)
    trained = step_seconds(backbone.input, head, images, **whole)
    rows += [
        (f"step of {_BATCH.value}, all trained", trained),
        (f"step of {_BATCH.value}, backbone frozen", still),
        (f"step of {_BATCH.value}, cached features", cached),
    ]
    print("| what | s | CPU s |\n|---|---|---|")
    for name, seconds in rows:
        print(f"| {name} | {seconds[0]:.3g} | {seconds[1]:.3g} |")
    ratios = [one / other for one, other in zip(still, cached, strict=True)]
    print(f"\nFrozen over cached: {ratios[0]:.0f} times the time, {ratios[1]:.0f} times the work.")


if __name__ == "__main__":
    app.run(main)
