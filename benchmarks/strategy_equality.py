"""How far training over replicas is from training on one device: the table of docs/distributed.md.

    python -m benchmarks.strategy_equality
    python -m benchmarks.strategy_equality --only=CircleHead

Each case is fitted for 4 epochs on one device, on two replicas of this process and on two worker
processes. Printed are the largest absolute differences of a weight and of a reported number.
"""

import json
import os
import tempfile

import tensorflow as tf
from absl import app, flags

_ONLY = flags.DEFINE_string("only", "", "Part of the names of the cases wanted; default: all.")


def main(_):
    """Prints the table as Markdown."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    from benchmarks import strategy_cases

    names = [name for name in strategy_cases.CASES if _ONLY.value in name]
    quoted = ",".join(f'"{name}"' for name in names)  # Some names hold a comma.
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "results.json")
        workers = strategy_cases.start_workers(
            [f"--output={output}", f"--cases={quoted}"], workers=2
        )
        strategy_cases.wait_for(workers, timeout=1800)
        with open(f"{output}.0", encoding="utf-8") as stream:
            from_workers = json.load(stream)
    mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    print("| case | Mirrored(2): weights | logs | 2 workers: weights | logs | loss scale, steps |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in names:
        case = strategy_cases.CASES[name]
        expected = strategy_cases.run(case, tf.distribute.get_strategy())
        runs = [strategy_cases.run(case, mirrored), from_workers[name]]
        apart = [strategy_cases.differences(run, expected) for run in runs]
        cells = [f"{found[kind]:.0e}" for found in apart for kind in ("weights", "logs")]
        print("|", " | ".join([name, *cells, _same(runs, expected)]), "|", flush=True)


def _same(runs, expected):
    keys = ["iterations"] + ["loss scale"] * ("loss scale" in expected)
    same = all(run[key] == expected[key] for run in runs for key in keys)
    return "same: " * same + ", ".join(f"{expected[key][-1]:g}" for key in reversed(keys))


if __name__ == "__main__":
    app.run(main)
