"""How many batches a second the sampler feeds, from memory, files and TFRecord.

    python -m benchmarks.sampler_benchmark

The images are made up in a temporary folder: 112 x 112 JPEG files as of faces, and the same in
TFRecord. A source is fast enough when it makes batches faster than the model takes them.
"""

import itertools
import os
import tempfile
import time

import numpy as np
import tensorflow as tf
from absl import app, flags

from circle_tf.data.pipeline import pk_dataset
from circle_tf.data.records import RecordFiles, write_index
from circle_tf.data.sampler import PKSampler

_CLASSES = flags.DEFINE_integer("classes", 1000, "Classes.", lower_bound=2)
_EXAMPLES = flags.DEFINE_integer("examples", 10, "Examples of each class.", lower_bound=1)
_P = flags.DEFINE_integer("classes_per_batch", 32, "P.", lower_bound=2)
_K = flags.DEFINE_integer("examples_per_class", 4, "K.", lower_bound=2)
_SIDE = flags.DEFINE_integer("image_size", 112, "Side of the JPEG images in pixels.")
_SECONDS = flags.DEFINE_float("seconds", 3.0, "How long to measure each.")


def measure(step, *, seconds: float) -> tuple[float, float]:
    """Seconds of a call of `step` and seconds that processors work for it, after warming up."""
    for _ in range(20):
        step()
    count, start, worked = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        step()
        count += 1
    return (time.perf_counter() - start) / count, (time.process_time() - worked) / count


def write_images(folder: str, *, count: int, side: int) -> list[str]:
    """Writes JPEG files of smooth noise, about as large as photographs of that size."""
    paths = [os.path.join(folder, f"{row}.jpg") for row in range(count)]
    noise = tf.random.stateless_uniform([64, side // 6, side // 6, 3], [0, 0], 0, 255)
    images = tf.cast(tf.image.resize(noise, [side, side], method="bicubic"), tf.uint8)
    contents = [tf.io.encode_jpeg(image).numpy() for image in images]
    for row, path in enumerate(paths):
        with open(path, "wb") as stream:
            stream.write(contents[row % len(contents)])
    return paths


def write_records(path: str, *, images: list[str], labels: np.ndarray) -> str:
    """Packs image files and labels into one TFRecord file with an index."""
    with tf.io.TFRecordWriter(path) as writer:
        for image, label in zip(images, labels, strict=True):
            with open(image, "rb") as stream:
                content = tf.train.BytesList(value=[stream.read()])
            feature = {
                "image": tf.train.Feature(bytes_list=content),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            writer.write(example.SerializeToString())
    write_index(path)
    return path


def sources(folder: str, *, labels: np.ndarray, side: int) -> dict:
    """Examples and `decode` of each kind of source, by name."""
    feature = {"image": tf.io.FixedLenFeature([], tf.string)}

    def decode(content):
        return tf.ensure_shape(tf.io.decode_jpeg(content, channels=3), [side, side, 3])

    def decode_record(content):
        return decode(tf.io.parse_single_example(content, feature)["image"])

    files = write_images(folder, count=len(labels), side=side)
    shard = write_records(os.path.join(folder, "a.tfrecord"), images=files, labels=labels)
    return {
        "array 32 x 32 x 1": (np.zeros([len(labels), 32, 32, 1], np.uint8), None),
        f"JPEG files {side} x {side}": (files, decode),
        f"JPEG in TFRecord {side} x {side}": (RecordFiles(shard), decode_record),
    }


def main(argv):
    """Prints a table of batches a second."""
    del argv
    labels = np.repeat(np.arange(_CLASSES.value), _EXAMPLES.value)
    batch = {"classes_per_batch": _P.value, "examples_per_class": _K.value}
    print(f"{len(labels)} examples of {_CLASSES.value} classes, P {_P.value} x K {_K.value}")
    print(f"{'source':<32} {'batches/s':>10} {'images/s':>10} {'ms/batch':>10} {'CPU ms':>10}")
    sampler, steps = PKSampler(labels, **batch), itertools.count()
    times = {"rows alone": measure(lambda: sampler(next(steps)), seconds=_SECONDS.value)}
    with tempfile.TemporaryDirectory() as folder:
        found = sources(folder, labels=labels, side=_SIDE.value)
        for name, (examples, decode) in found.items():
            dataset = pk_dataset(examples, labels, decode=decode, **batch)
            batches = iter(dataset)
            times[name] = measure(lambda b=batches: next(b), seconds=_SECONDS.value)
            del dataset, batches  # or it would go on filling its buffer
    for name, (wall, work) in times.items():
        print(
            f"{name:<32} {1 / wall:>10.1f} {sampler.batch_size / wall:>10.0f} "
            f"{1000 * wall:>10.2f} {1000 * work:>10.2f}"
        )


if __name__ == "__main__":
    app.run(main)
