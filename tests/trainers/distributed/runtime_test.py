import subprocess
import sys

import keras
import numpy as np
import pytest

from configs import digits
from tests import processes
from trainers import launch
from trainers.cli import commands
from trainers.distributed import cluster, runtime


@pytest.fixture(autouse=True)
def usual_policy():
    yield
    keras.config.set_dtype_policy("float32")


def recipe(**changes):
    config = digits.get_config()
    config.deterministic = False  # It cannot be taken back, and would bind the other tests.
    config.update(changes)
    return config


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_precision(precision):
    runtime.set_up(recipe(precision=precision))
    assert keras.config.dtype_policy().name == precision


_GRADIENTS = """
import numpy as np
import tensorflow as tf
from circle_tf.backbones import by_name
from configs import digits
from trainers.distributed import runtime

runtime.set_up(digits.get_config())
net = by_name.build("resnet18_v2", (128, 128, 3))
pixels = tf.random.stateless_normal([32, 128, 128, 3], [1, 2])

@tf.function(autograph=False)
def gradients():
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(net(pixels, training=True) ** 2)
    return tape.gradient(loss, [v.value for v in net.trainable_variables])

first = gradients()
for _ in range(7):
    assert all(np.array_equal(one, other) for one, other in zip(first, gradients()))
"""


# Slow: a net and pictures that are large enough for the graph optimiser to save memory. In a
# process of its own, for determinism cannot be taken back.
@pytest.mark.slow
def test_deterministic_gradients_of_a_residual_net_are_the_same_to_the_bit():
    subprocess.run([sys.executable, "-c", _GRADIENTS], check=True, timeout=300)


def test_seed_makes_weights_the_same():
    def weights(seed):
        runtime.set_up(recipe(seed=seed))
        layer = keras.layers.Dense(3)
        layer.build((None, 4))
        return layer.kernel.numpy()

    np.testing.assert_array_equal(weights(1), weights(1))
    assert (weights(1) != weights(2)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "float16"}, "float32, mixed_bfloat16, mixed_float16; found 'float16'"),
        ({"jit": "yes"}, "auto, on or off; found 'yes'"),
        ({"deterministic": "perhaps"}, "auto, True or False; found 'perhaps'"),
        ({"strategy": "tpu"}, "single, mirrored, multi_worker; found 'tpu'"),
        ({"strategy": "single", "devices": 2}, "devices=2. Set strategy=mirrored"),
        ({"devices": -1}, "found -1"),
        ({"strategy": "mirrored", "devices": 9}, "started with fewer devices"),
        ({"strategy": "multi_worker"}, "TF_CONFIG is not set.*trainers.launch"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(commands.ConfigError, match=message):
        runtime.set_up(recipe(**changes))


def test_mirrored():
    strategy = runtime.set_up(recipe(strategy="mirrored", devices=2))
    assert strategy.num_replicas_in_sync == 2
    assert runtime.cluster_of(strategy).is_chief


# A process, since a cluster is to be known before anything runs.
def test_a_worker_trains_on_several_cpus_without_gpus():
    code = """
from trainers.distributed import runtime
from tensorflow.python.distribute import collective_all_reduce_strategy as private
before = private.CollectiveAllReduceExtended._initialize_local_devices
strategy = runtime.multi_worker(3)
print(strategy.num_replicas_in_sync, runtime.cluster_of(strategy).workers)
assert private.CollectiveAllReduceExtended._initialize_local_devices is before
"""
    (port,) = launch.free_ports(1)
    workers = [f"localhost:{port}"]
    environment = {"TF_CONFIG": cluster.tf_config(workers, index=0), "CUDA_VISIBLE_DEVICES": "-1"}
    done = processes.run("-c", code, **environment)
    assert done.stdout == f"3 ('localhost:{port}',)\n", done.stderr


# Sums of the values that other operations read at the same time: which of these ends first is
# chance, and AddN begins with a value that nobody reads any more.
_SUMS = """
import trainers
from circle_tf.utils import quiet
quiet.import_tensorflow(log_level=3)
import numpy as np
import tensorflow as tf
from configs import digits
from trainers.distributed import runtime

runtime.set_up(digits.get_config())
draws = np.random.default_rng(0)
a, b, c, d = (tf.constant(draws.normal(size=[300, 300]) / 17, tf.float32) for _ in range(4))

@tf.function
def sums():
    values = [tf.sin(a), tf.cos(b), tf.tanh(c), d @ d]
    read = [tf.reduce_sum(value @ value) for value in values[:2]]
    return tf.add_n(values), read

print(len({sums()[0].numpy().tobytes() for _ in range(200)}))
"""


def test_sums_of_gradients_are_the_same_each_time():
    assert processes.printed("-c", _SUMS) == "1\n"


_COMPILED = """
import trainers
from circle_tf.utils import quiet
quiet.import_tensorflow(log_level=3)
import keras
import numpy as np
import circle_tf
from configs import digits
from trainers.distributed import runtime
from trainers.training import run_models

config = digits.get_config()
config.update(jit="on", deterministic=True)
images = np.random.default_rng(0).normal(size=[16, 12, 12, 3]).astype("float32")

def trained(pool):
    runtime.set_up(config)
    x = keras.Input((12, 12, 3))
    maps = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(x)
    maps = keras.layers.ReLU()(keras.layers.BatchNormalization()(maps))
    branches = [keras.layers.Conv2D(8, size, padding="same")(maps) for size in (1, 3, 5)]
    features = keras.layers.Flatten()(pool(keras.layers.Add()(branches)))
    model = circle_tf.EmbeddingModel(x, circle_tf.UnitEmbedding(4)(features))
    model.compile("adam", circle_tf.CircleLoss(gamma=8.0), jit_compile=True)
    for _ in range(4):
        model.train_on_batch(images, np.repeat(np.arange(8), 2))
    assert model.compiled_by_xla
    return b"".join(value.tobytes() for value in model.get_weights())

print(len({trained(keras.layers.AveragePooling2D(2)) for _ in range(3)}))
for attempt in (
    lambda: trained(keras.layers.MaxPooling2D(name="largest")),
    lambda: trained(lambda maps: keras.ops.max_pool(maps, 2)),
    lambda: run_models.build(config, image_shape=(8, 8, 1), num_classes=5, steps=4),
):
    try:
        attempt()
    except Exception as error:
        print(type(error).__name__, error)
"""


# Slow: XLA compiles nets in processes of their own.
@pytest.mark.slow
def test_compiled_nets_are_repeatable_and_max_pools_are_refused():
    count, *errors = processes.printed("-c", _COMPILED).splitlines()
    assert count == "1"
    assert [error.split()[0] for error in errors] == ["ValueError", "ValueError", "ConfigError"]
    assert all("no deterministic gradient of max pooling (MaxPoolGrad)" in line for line in errors)
    assert "largest: MaxPooling2D" in errors[0] and "MaxPool2d: XLA" in errors[1]
    assert "max_pooling2d" in errors[2]


_TRAINED_TWICE = """
import trainers
from circle_tf.utils import quiet
quiet.import_tensorflow(log_level=3)
import numpy as np
from configs import digits
from trainers.distributed import runtime
from trainers.training import run_models

config = digits.get_config()
config.update(jit={jit!r}, deterministic=True)
config.model.backbone = {net!r}
images = np.random.default_rng(0).integers(0, 256, [16, 32, 32, 3]).astype("uint8")
seen = set()
for _ in range(2):
    runtime.set_up(config)
    models = run_models.build(config, image_shape=(32, 32, 3), num_classes=8, steps=4)
    for _ in range(4):
        models.training.train_on_batch(images, np.repeat(np.arange(8), 2))
    seen.add(b"".join(value.tobytes() for value in models.training.get_weights()))
print(models.training.compiled_by_xla, len(seen))
"""


# Slow: each builds and trains a large net, twice.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "jit"),
    [("resnet18_v2", "auto"), ("MobileNetV2", "auto"), ("iresnet18", "on"), ("MobileNetV2", "on")],
)
def test_nets_with_branches_train_to_the_same_weights(net, jit):
    found = processes.printed("-c", _TRAINED_TWICE.format(net=net, jit=jit))
    assert found == f"{jit == 'on'} 1\n"
