"""Two processes train as one device does; one pair runs many cases, to start but once."""

import itertools
import json
import re

import pytest

from benchmarks import strategy_cases
from tests import one_device, stacks

pytestmark = stacks.needs_own_steps

COMPILED = "mixed_float16, XLA"  # Runs in a pair of its own, whose compiled modules are read.


def run_workers(folder, *arguments, workers=2, environment=None):
    output = folder / "results.json"
    processes = strategy_cases.start_workers(
        [f"--output={output}", *arguments], workers=workers, environment=environment
    )
    strategy_cases.wait_for(processes, timeout=540)
    results = []
    for index in range(workers):
        with open(f"{output}.{index}", encoding="utf-8") as stream:
            results.append(json.load(stream))
    return results


@pytest.fixture
def hold_to_one_device(tmp_path_factory):
    def hold(results):
        base = tmp_path_factory.getbasetemp()
        apart = {name: one_device.differences(name, results[name], base) for name in results}
        assert {name: found for name, found in apart.items() if found} == {}

    return hold


def modules_of(folder):
    """Compiled functions in an XLA dump: `{name without numbers: list of texts}`."""
    found = {}
    for path in folder.glob("*before_optimizations.txt"):
        name = re.sub(r"_+\d+", "", path.name.split(".", 1)[1].split(".")[0]).strip("_")
        found.setdefault(name, []).append(path.read_text(encoding="utf-8"))
    return found


def hold_workers_alike(first, second):
    for name in first:
        for values in {"weights", "memory"} & first[name].keys():
            assert first[name][values] == second[name][values], name


# One where a worker gets no rows, one where one worker alone meets an inf. What CircleLoss has
# beside these, metrics and evaluation, is traced for long, and quick over two replicas.
QUICK = ["a replica without rows, class", "mixed_float16, inf on one replica"]


def quoted(names):
    return ",".join(f'"{name}"' for name in names)


REST = [name for name in strategy_cases.CASES if name not in (COMPILED, *QUICK)]


# Slow: two processes trace all the other cases.
@pytest.mark.parametrize("names", [QUICK, pytest.param(REST, marks=pytest.mark.slow)])
def test_two_processes_equal_one_device(names, tmp_path, hold_to_one_device):
    first, second = run_workers(tmp_path, f"--cases={quoted(names)}")
    assert list(first) == names
    hold_workers_alike(first, second)
    hold_to_one_device(first)


# Slow: as above, with four replicas in all.
@pytest.mark.slow
def test_two_processes_of_two_devices_equal_one_device(tmp_path, hold_to_one_device):
    names = '"a replica without rows, class","mixed_float16, inf on one replica"'
    hold_to_one_device(run_workers(tmp_path, "--devices=2", f"--cases={names}")[0])


# Slow: a process of its own, for TensorFlow allows collectives of one group size in a process.
@pytest.mark.slow
def test_four_replicas_of_one_process_equal_one_device(tmp_path, hold_to_one_device):
    names = '"CircleLoss","a replica without rows, class"'
    arguments = ["--mirrored", "--devices=4", f"--cases={names}"]
    hold_to_one_device(run_workers(tmp_path, *arguments, workers=1)[0])


# Slow: two processes that write down what XLA compiles.
@pytest.mark.slow
def test_xla_compiles_forward_loss_and_both_backward_functions_once_for_each_shape(
    tmp_path, hold_to_one_device
):
    dump = tmp_path / "xla"
    results = run_workers(
        tmp_path,
        f'--cases="{COMPILED}"',
        environment={"XLA_FLAGS": f"--xla_dump_to={dump}"},
    )
    hold_to_one_device(results[0])
    modules = modules_of(dump)
    network = ["a_forward_call", "a_inference___backward_call"]
    loss = ["a_forward_safe_normalize", "a_inference_update", "a_inference_finalize"]
    loss += ["a_inference_gradients", "a_inference___backward_safe_normalize"]
    # 43 rows in batches of 16: 8 rows a process, then 6 and 5. Each process compiles each of its
    # two shapes once, in 12 steps.
    assert {name: len(texts) for name, texts in modules.items()} == dict.fromkeys(network + loss, 4)
    for text in itertools.chain.from_iterable(modules[name] for name in network):
        assert re.search(r"= f16\S* dot\(", text)
    for text in itertools.chain.from_iterable(modules[name] for name in loss):
        assert re.search(r"= f32\S* ", text) and "f16" not in text
