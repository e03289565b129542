"""What a command prints as the next one runs, typed as it is printed, where it was printed."""

import functools
import pathlib
import re
import shlex
import types

import numpy as np
import pytest
import requests

from export import publish
from export.publishing import publisher
from export.verification import checks, probes
from tests import processes

ROOT = pathlib.Path(__file__).absolute().parents[1]
NAME = """it's $HOME, "7" ä"""
RECIPE = ["--config=configs/digits.py", "--config.loss.name=class_circle", "--config.steps=4"]


def next_commands(said):
    """The words after `python` of every command of ours that is shown, on one line or more."""
    lines = said.replace("\\\n", " ").splitlines()
    shown = [line[line.index("python -m ") :] for line in lines if "python -m " in line]
    return [shlex.split(line)[1:] for line in shown]


@pytest.fixture
def printed(tmp_path):
    """Runs a command in a folder of an awkward name, in which are the recipes."""
    folder = tmp_path / "a b's"
    folder.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    return functools.partial(processes.printed, cwd=folder, PYTHONPATH=str(ROOT))


def write_images(folder):
    """24 pictures of 6 classes."""
    for row, image in enumerate(np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3))):
        path = folder / f"class {row % 6}" / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(probes.as_png(image))


def _at(words, address):
    """A command that asks the default port asks this address."""
    return [word.replace("localhost:8500", address) for word in words]


# Slow: a dozen processes that import TensorFlow.
@pytest.mark.slow
def test_from_training_to_a_rollback_each_command_is_the_one_printed(printed):
    said = printed("-m", "trainers.train", *RECIPE, f"--workdir=runs/{NAME}")
    (evaluate,) = next_commands(said)
    (publish,) = next_commands(printed(*evaluate))
    verify, serve = next_commands(printed(*publish))
    assert "is fit to be served" in printed(*verify)
    made = ["--images=held_out", "--output=my gallery's.npz"]
    (publish,) = next_commands(printed("-m", "export.gallery", f"--workdir=runs/{NAME}", *made))
    ports = ["--grpc_port=0", "--rest_port=0"]
    with processes.started(*serve, *ports, **printed.keywords) as process:
        told = "".join(process.stdout.readline() for _ in range(3))
        assert f"Serving {NAME}/1\n" in told, process.communicate()
        assert requests.get(re.search("http.*", told)[0], timeout=30).ok
        address = re.search("gRPC  (.*)", told)[1]
        _, _, promote = next_commands(printed(*publish, f"--server={address}"))
        asked = ["-m", "export.query", f"--model={NAME}", f"--target={address}", "--version=2"]
        write_images(printed.keywords["cwd"] / "x y")
        (query,) = next_commands(printed(*asked, "--build=x y", "--index=i's.npz"))
        assert "x y/class 0/0.png\n    1   1.0000  class 0/0.png\n" in printed(*query)
        (rollback,) = next_commands(printed(*promote))
        assert "stable    version 1" in printed(*rollback)
        (labels,) = next_commands(printed("-m", "export.labels", rollback[2]))
        assert f"in agreement: {address}" in printed(*_at(labels, address))


def test_after_publishing_where_no_server_can_be_asked():
    """A canary waits for its label; in the folder of two shells' special characters."""
    verified = checks.Verification(())
    published = publisher.Published(f"b/{NAME}/2", {}, verified, {"stable": 1})
    options = types.SimpleNamespace(
        workdir=f"runs/{NAME}", base_path=f"b/{NAME}", models_config=None, server=[], best=False
    )
    verify, serve, labels = next_commands(publish.next_steps(published, options, config="b/c d"))
    assert verify == [*("-m", "export.verify", f"--model=b/{NAME}/2", f"--workdir=runs/{NAME}")]
    assert serve[:3] == ["-m", "export.serve", "--models_config=b/c d"]
    assert labels == [*("-m", "export.labels", f"--base_path=b/{NAME}", "--server=localhost:8500")]


# Slow: five processes that import TensorFlow.
@pytest.mark.slow
def test_from_a_folder_of_images_to_a_training_on_shards(printed):
    folder = printed.keywords["cwd"] / f"photos {NAME}"
    write_images(folder)
    convert = ["-m", "trainers.data", "convert", f"--path={folder.name}", f"--output=s {NAME}"]
    check, train = next_commands(printed(*convert))
    assert "24 images of 6 classes" in printed(*check)
    small = [
        "--config.steps=1",
        "--config.optimizer.warmup_steps=0",
        "--config.model.backbone=conv4",
        "--config.dataset.image_size=16",
    ]
    small += ["--config.batch.classes_per_batch=2", "--config.batch.examples_per_class=2"]
    (evaluate,) = next_commands(printed(*train, *small))
    assert next_commands(printed(*evaluate))[0][:2] == ["-m", "export.publish"]


def test_the_flags_of_serving_files_name_the_files_written(printed):
    folder = printed.keywords["cwd"] / NAME
    folder.mkdir()
    said = printed("-m", "export.serving_files", f"--output={NAME}")
    flags = [word for line in said.splitlines() for word in _words(line) if "_file=" in word]
    assert len(flags) == 3
    assert all(pathlib.Path(flag.partition("=")[2]).is_file() for flag in flags)


def _words(line):
    return shlex.split(line) if line.startswith("  ") else []
