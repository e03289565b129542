"""One of several workers that run the equality cases; started by `strategy_cases.start_workers`.

    TF_CONFIG=... python -m benchmarks.strategy_worker --output=results.json

Every worker must come to the same results; worker 0 writes them.
"""

import json
import os

import tensorflow as tf
from absl import app, flags

_OUTPUT = flags.DEFINE_string("output", None, "JSON file for the results.", required=True)
_CASES = flags.DEFINE_list(
    "cases", [], "Names of cases (with a comma in a name: quote it); all if none."
)
_MIRRORED = flags.DEFINE_bool("mirrored", False, "MirroredStrategy over this one's devices.")
_DEVICES = flags.DEFINE_integer("devices", 1, "Logical CPU devices of this worker.")


def main(_):
    """Runs the cases."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * _DEVICES.value
    tf.config.set_logical_device_configuration(cpu, logical)
    if _MIRRORED.value:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(_DEVICES.value)])
    else:
        from trainers.distributed import runtime

        strategy = runtime.multi_worker(_DEVICES.value)
    from benchmarks import strategy_cases

    names = _CASES.value or list(strategy_cases.CASES)
    config = json.loads(os.environ["TF_CONFIG"])
    index, workers = config["task"]["index"], len(config["cluster"]["worker"])
    assert strategy.num_replicas_in_sync == workers * _DEVICES.value
    results = {}
    for name in names:
        results[name] = strategy_cases.run(strategy_cases.CASES[name], strategy)
        print("done:", name, flush=True)
    with open(f"{_OUTPUT.value}.{index}", "w", encoding="utf-8") as stream:
        json.dump(results, stream)


if __name__ == "__main__":
    app.run(main)
