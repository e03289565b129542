"""The commands as a user meets them: output, exit status, errors without tracebacks."""

import os
import subprocess
import sys

import pytest

from export import probes
from tests import saved_models


def _command(module, *options):
    return subprocess.run(
        [sys.executable, "-m", f"export.{module}", *options], capture_output=True, text=True
    )


# Starts nine processes that import TensorFlow: 30 to 60 seconds.
@pytest.mark.slow
def test_publish_and_verify(tmp_path):
    workdir = saved_models.finished_run(tmp_path / "run")
    base_path = tmp_path / "tiny"
    for name in ("b/1.png", "a/2.png", "a/3.png"):
        (tmp_path / "gallery" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "gallery" / name).write_bytes(probes.as_png(saved_models.IMAGES[int(name[2])]))
    options = [f"--gallery={tmp_path}/gallery", "--weights=float16", "--k=2"]
    done = _command("publish", f"--workdir={workdir}", f"--base_path={base_path}", *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Published {base_path}/1\n" in done.stdout
    assert "images float32 [?, 8, 8, 1] -> embeddings float32 [?, 6]" in done.stdout
    assert "largest difference" in done.stdout and "MODEL_NAME=tiny" in done.stdout
    assert sorted(os.listdir(base_path)) == [".publish.lock", "1"]

    # The command that publish prints as the next one.
    (line,) = [line for line in done.stdout.splitlines() if "export.verify" in line]
    again = _command("verify", *line.split()[3:])
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith(f"{base_path}/1 is fit to be served.\n")
    assert "over batches 1, 3, 17" in again.stdout
    assert "classes [17, 2]" in again.stdout and "ids [17, 2]" in again.stdout

    for command, seen in (("promote", "no canary to promote"), ("rollback", "neither a canary")):
        done = _command(command, f"--base_path={base_path}")
        assert done.returncode == 1 and seen in done.stderr and "Traceback" not in done.stderr
    done = _command("prune", f"--base_path={base_path}", "--keep=1")
    assert (done.returncode, done.stderr) == (0, "") and "Left: 1" in done.stdout
    config = tmp_path / "models.config"
    done = _command("serving_files", f"--output={tmp_path}", "--batch_sizes=1,4")
    assert (done.returncode, done.stderr) == (0, "")
    done = _command("serving_files", f"--check={config},{tmp_path}/batching.config")
    assert done.stdout == f"{config} is right.\n{tmp_path}/batching.config is right.\n"


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("publish", ["--workdir=none", "--base_path=b"], "error: There is no workdir 'none'"),
        ("publish", ["--workdir=.", "--base_path=b"], "error: The run in '.' has not finished"),
        ("publish", ["--workdir=none"], "Flag --base_path must have a value"),
        ("publish", ["--workdir=w", "--base_path=b", "--version=0"], "--version=0"),
        ("publish", ["--workdir=w", "--base_path=b", "w"], "Unexpected argument 'w'"),
        ("publish", ["--workdir=w", "--base_path=b", "--weights=int8"], "--weights=int8"),
        ("serving_files", [], "either --output=FOLDER or --check=FILE"),
        ("gallery", ["--workdir=none", "--output=g.npz"], "error: There is no workdir 'none'"),
        ("promote", ["--base_path=none/m"], "publish writes it with the first version"),
        ("verify", [], "Flag --model must have a value"),
        ("verify", ["--model=none"], "error: There is no SavedModel at 'none'"),
    ],
)
def test_errors_are_for_people(module, options, message):
    done = _command(module, *options)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
