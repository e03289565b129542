"""Images a second of training on a GPU, XLA and mixed precision, beside the same in PyTorch.

ResNet50 on 224 x 224 pixels, embeddings of 512, pair-wise Circle loss, SGD with momentum. Both get
one batch of bytes from the host's memory over and over; neither decodes or augments.
"""

import keras
import numpy as np
import tensorflow as tf

import circle_tf
from benchmarks.gpu import clock, table
from circle_tf import backbones
from circle_tf.utils import devices

_DIM = 512
_MOST_NEEDED = 2**30 // 6  # Bytes of an image's activations in half precision, with room to spare.


def rows(limits):
    """Ours, and PyTorch's as a ratio to it."""
    size, net, count = (16, "tiny", 8) if limits.small else (224, "ResNet50", _batch_size())
    precision = _precision()
    title = f"{net}, {size} x {size}, batch {count}, mixed_{precision}"
    skip = limits.skips(title, needs=0 if limits.small else 40)
    if skip:
        yield skip
        return
    yield from _ours(title, size, net, count, precision)
    with clock.torch_peer() as peer:
        if isinstance(peer, str):
            yield table.skipped("PyTorch", peer)
            return
        name = f"{title}: PyTorch, channels_last, autocast, compiled"
        if not limits.small and (skip := limits.skips(name, needs=40)):
            yield skip
            return
        options = {"rows": count, "size": size, "dim": _DIM, "precision": precision, "net": net}
        yield from clock.measured_alone(name, clock.Peer(peer, "training", **options), count)


def _ours(title, size, net, count, precision):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        model = _model(size, net)
    finally:
        keras.config.set_dtype_policy(before)
    way = _fit_timer(model, size, count)
    yield from clock.measured_alone(f"{title}: EmbeddingModel.fit, XLA", way, count)


def _model(size, net):
    pixels = keras.Input((size, size, 3))
    if net == "tiny":
        x = keras.layers.Conv2D(8, 3, 2, "same")(pixels)
        features = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    else:
        features = backbones.build(net, (size, size, 3))(pixels)
    model = circle_tf.EmbeddingModel(pixels, circle_tf.UnitEmbedding(_DIM)(features))
    optimizer = keras.optimizers.SGD(1e-3, momentum=0.9)
    model.compile(optimizer, circle_tf.CircleLoss(), jit_compile=True)
    return model


def _fit_timer(model, size, count):
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    batch = tf.data.Dataset.from_tensors((pixels, np.arange(count) // 4))
    data = batch.repeat().prefetch(2)

    def epoch(steps):
        model.fit(data, epochs=1, steps_per_epoch=steps, verbose=0)

    return clock.seconds_of(epoch)


def _batch_size():
    total = devices.gpu_bytes() or 2**33
    fitting = total // 2 // _MOST_NEEDED
    return int(max(16, min(256, 2 ** int(np.log2(fitting)))))


def _precision():
    """bfloat16 where the GPU multiplies it, float16 elsewhere."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "bfloat16"
    details = tf.config.experimental.get_device_details(gpus[0])
    return "bfloat16" if details.get("compute_capability", (0, 0)) >= (8, 0) else "float16"
