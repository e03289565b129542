"""What a run computes with, on made-up devices."""

import pytest

from configs import base, digits
from tests import processes
from trainers.cli import commands
from trainers.distributed import acceleration

CPU = acceleration.Device("CPU")
TPU = acceleration.Device("TPU")


def gpu(*capability):
    return acceleration.Device("GPU", "NVIDIA", capability or None)


def chosen(devices, **changes):
    config = base.get_config()
    config.update(changes)
    return tuple(acceleration.choose(config, devices))


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ([CPU], ("float32", False, True)),
        ([CPU, CPU], ("float32", False, True)),
        ([TPU], ("mixed_bfloat16", "auto", False)),
        ([gpu(9, 0)], ("mixed_bfloat16", "auto", False)),
        ([gpu(12, 0)], ("mixed_bfloat16", "auto", False)),
        ([gpu(8, 0)], ("mixed_bfloat16", "auto", False)),
        ([gpu(7, 5)], ("mixed_float16", "auto", False)),
        ([gpu(7, 0)], ("mixed_float16", "auto", False)),
        ([gpu(6, 1)], ("float32", "auto", False)),
        ([gpu()], ("float32", "auto", False)),
        ([gpu(9, 0), gpu(7, 5)], ("mixed_float16", "auto", False)),
        ([gpu(9, 0), gpu()], ("float32", "auto", False)),
    ],
)
def test_auto_follows_the_devices(devices, expected):
    assert chosen(devices) == expected


@pytest.mark.parametrize("devices", [[CPU], [TPU], [gpu(9, 0)], [gpu(6, 1)]])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("jit", ["on", "off"])
def test_what_is_given_holds_on_every_device(devices, precision, deterministic, jit):
    found = chosen(devices, precision=precision, jit=jit, deterministic=deterministic)
    assert found == (precision, jit == "on", deterministic)


@pytest.mark.parametrize(
    ("devices", "changes", "expected"),
    [
        # Bits come before speed where they are asked for.
        ([gpu(9, 0)], {"deterministic": True}, ("mixed_bfloat16", False, True)),
        # What is compiled on a CPU was compiled on demand, as for a GPU.
        ([CPU], {"jit": "on"}, ("float32", True, False)),
        ([CPU], {"deterministic": False}, ("float32", False, False)),
        ([gpu(9, 0)], {"jit": "off"}, ("mixed_bfloat16", False, False)),
        ([gpu(9, 0)], {"precision": "float32"}, ("float32", "auto", False)),
    ],
)
def test_auto_follows_what_is_given(devices, changes, expected):
    assert chosen(devices, **changes) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "half"}, "one of auto, float32, .*; found 'half'"),
        ({"jit": "yes"}, "jit must be auto, on or off; found 'yes'"),
        ({"deterministic": "yes"}, "deterministic must be auto, True or False; found 'yes'"),
        ({"deterministic": 1}, "deterministic must be auto, True or False; found 1"),
        ({"deterministic": None}, "found None"),
    ],
)
def test_other_values_are_refused(changes, message):
    with pytest.raises(commands.ConfigError, match=message):
        chosen([CPU], **changes)


@pytest.mark.parametrize(
    ("choice", "devices", "xla", "words"),
    [
        (
            acceleration.Choice("mixed_bfloat16", "auto", False),
            [acceleration.Device("GPU", "NVIDIA H100", (9, 0))],
            True,
            "On 1 GPU (NVIDIA H100): mixed_bfloat16, XLA, not repeatable bit for bit; choose by "
            "--config.precision, --config.jit, --config.deterministic.",
        ),
        (acceleration.Choice("float32", False, True), [CPU] * 2, False, "On 2 CPUs: float32, no"),
    ],
)
def test_the_choice_is_one_line(choice, devices, xla, words):
    found = acceleration.describe(choice, devices, xla=xla)
    assert found.startswith(words) and "\n" not in found


def test_this_machine_has_devices():
    config = digits.get_config()
    (single,) = acceleration.devices_of(config)
    config.update(strategy="mirrored", devices=2)
    if single.kind == "CPU":
        assert acceleration.devices_of(config) == [CPU, CPU]


_READ = """
import sys
sys.argv = ["train", "--config=configs/digits.py", *sys.argv[1:]]
from absl import app, flags
from ml_collections import config_flags
flag = config_flags.DEFINE_config_file("config")
app.run(lambda argv: print(*(repr(flag.value[name]) for name in ("precision", "deterministic"))))
"""


@pytest.mark.parametrize(
    ("option", "value"),
    [("=true", True), ("=False", False), ("=auto", "auto"), ("", True)],
)
def test_determinism_is_a_word_or_a_bool_on_the_command_line(option, value):
    found = processes.printed("-c", _READ, f"--config.deterministic{option}")
    assert found == f"'auto' {value!r}\n"
