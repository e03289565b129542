"""The whole way as a person goes it, each command a process: from training to an answered query.

Each step types what the one before it has printed as the next.
"""

import json
import os
import re
import shlex
import signal

import pytest
from PIL import Image

from tests.processes import dies_writing, printed, run, started

RECIPE = ["--config=configs/digits.py", "--config.steps=12", "--config.eval_every=6"]


def next_command(said, module):
    """The words after `python` of the command, shown on one line or more, that calls a module."""
    lines = said.replace("\\\n", " ").splitlines()
    (line,) = [line for line in lines if f"python -m {module} " in line]
    return shlex.split(line.partition("python ")[2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def trained(folder):
    """What training printed that had been killed in the middle of writing a checkpoint."""
    words = [*RECIPE, "--config.checkpoint_every=4", f"--workdir={folder}/run"]
    assert run("-c", dies_writing(8), *words).returncode == -signal.SIGKILL
    return printed("-m", "trainers.train", *words)


@pytest.fixture(scope="module")
def evaluated(trained):
    return printed(*next_command(trained, "trainers.evaluate"))


@pytest.fixture(scope="module")
def published(evaluated, folder):
    words = next_command(evaluated, "export.publish")
    assert words[-1] == "--base_path=models/run"
    options = ["--gallery=held_out", "--weights=float16", "--k=3", "--false_accept_rate=0.01"]
    return printed(*words[:-1], f"--base_path={folder}/models/digits", *options)


@pytest.fixture(scope="module")
def served(published):
    """The process that serves what was published, and the address it answers gRPC on."""
    words = [*next_command(published, "export.serve"), "--grpc_port=0", "--rest_port=0"]
    with started(*words) as process:
        said = [process.stdout.readline() for _ in range(3)]
        assert "Serving digits/1\n" in said, process.communicate()
        (address,) = re.findall(r"gRPC  (\S+)\n", "".join(said))
        yield process, address


def test_training_goes_on_after_a_kill_and_says_what_a_newcomer_needs(trained, folder):
    lines = trained.splitlines()
    assert lines[0].startswith("digits: ") and len(lines) == 9
    assert lines[2].startswith("On 1 CPU: float32, no XLA, repeatable bit for bit; ")
    assert lines[3] == "Resuming after step 4: 12 steps of 60 images, loss circle."
    assert lines[-1] == f"Next: python -m trainers.evaluate --workdir={folder}/run"
    with open(folder / "run" / "metrics.jsonl") as file:
        assert [json.loads(line)["step"] for line in file] == [6, 12]


def test_evaluation_is_printed_and_written(evaluated, folder):
    with open(folder / "run" / "evaluation.json") as file:
        found = json.load(file)["leave_one_out"]["recall_at_1"]
    assert 0.5 < found <= 1 and f"leave-one-out             {found:.3f}" in evaluated
    drawn = {"retrieval_sheet.png", "decision_thresholds.png"}
    assert drawn <= {*os.listdir(folder / "run" / "plots")}


def test_what_is_published_is_fit_to_be_served(published, folder):
    assert f"Published {folder}/models/digits/1\n" in published
    assert "images float32 [?, 8, 8, 1] -> embeddings float32 [?, 32]" in published
    assert "largest difference" in published and "MODEL_NAME=digits" in published
    assert sorted(os.listdir(folder / "models" / "digits")) == [".publish.lock", "1"]
    with open(folder / "models/digits/1/assets.extra/manifest.json") as file:
        written = json.load(file)
    with open(folder / "run" / "evaluation.json") as file:
        assert written["decision"] == json.load(file)["decision"]
    chosen = [written["thresholds"][name] for name in ("verification", "search")]
    assert [one["false_accept_rate"] for one in chosen] == [0.01, 0.01]
    assert published.count("a false-accept rate of 0.01; too few examples to know the rate") == 2
    assert re.search(r"^  thumbnails       (\d+) of \1 images, ", published, re.MULTILINE)
    again = printed(*next_command(published, "export.verify"))
    assert again.startswith(f"{folder}/models/digits/1 is fit to be served.\n")
    assert "over batches 1, 3, 17" in again and "ids [17, 3]" in again


def test_a_served_model_answers_and_ends_in_good_order(served, folder):
    process, address = served
    asked = ["--model=digits", f"--target={address}", f"--held_out={folder}/run/held_out.npz"]
    told = printed("-m", "export.query", *asked, "--count=4", f"--sheet={folder}/sheet.png")
    assert re.search(r"^The nearest is of the same class for [0-4] of 4\.$", told, re.MULTILINE)
    assert len(re.findall(r"^\S+/\d+: (known|unknown), ", told, re.MULTILINE)) == 4
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size[1] > 4 * 112
    process.send_signal(signal.SIGTERM)
    rest, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert rest == "Stopping: no more requests are taken.\nUnloaded digits/1\n"
