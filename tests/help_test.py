"""What commands tell of themselves: at once, that is without TensorFlow."""

import importlib.util
import pathlib

import pytest

from tests import processes

ROOT = pathlib.Path(__file__).absolute().parents[1]
COMMANDS = [
    f"{package}.{path.stem}"
    for package in ("export", "trainers")
    for path in sorted((ROOT / package).glob("*.py"))
    if "__main__" in path.read_text()
]


@pytest.fixture(scope="module")
def no_tensorflow(tmp_path_factory):
    """A folder that, on the path, makes every import of TensorFlow or Keras fail."""
    folder = tmp_path_factory.mktemp("poisoned")
    for name in ("keras", "tensorflow"):
        (folder / f"{name}.py").write_text(f"raise AssertionError('{name} was imported')")
    return folder


def test_commands_are_found():
    assert {"trainers.train", "trainers.launch", "export.publish", "export.query"} <= {*COMMANDS}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_without_tensorflow(command, no_tensorflow):
    shown = processes.printed("-m", command, "--help", PYTHONPATH=str(no_tensorflow))
    source = pathlib.Path(importlib.util.find_spec(command).origin).read_text()
    summary = source.partition('"""')[2].partition("\n")[0]
    assert shown.startswith(summary)
    assert "\n  --" in shown, "no flag is told of"
    assert shown == processes.printed("-m", command, "-h", PYTHONPATH=str(no_tensorflow))


@pytest.mark.parametrize("command", ["labels", "promote", "prune", "rollback"])
def test_flags_that_commands_share_are_told_of(command):
    assert "--base_path" in processes.printed("-m", f"export.{command}", "--help")


@pytest.mark.parametrize("verb", ["check", "convert"])
def test_help_of_what_a_command_does(verb):
    assert "--path" in processes.printed("-m", "trainers.data", verb, "-h")
