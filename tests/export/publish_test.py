"""The commands as a user meets them: output, exit status, errors without tracebacks."""

import os
import subprocess
import sys

import pytest

from tests import saved_models


def _command(module, *options):
    return subprocess.run(
        [sys.executable, "-m", f"export.{module}", *options], capture_output=True, text=True
    )


# Starts four processes that import TensorFlow: 20 to 40 seconds.
@pytest.mark.slow
def test_publish_and_verify(tmp_path):
    workdir = saved_models.finished_run(tmp_path / "run")
    base_path = tmp_path / "tiny"
    done = _command("publish", f"--workdir={workdir}", f"--base_path={base_path}")
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


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("publish", ["--workdir=none", "--base_path=b"], "error: There is no workdir 'none'"),
        ("publish", ["--workdir=.", "--base_path=b"], "error: The run in '.' has not finished"),
        ("publish", ["--workdir=none"], "Flag --base_path must have a value"),
        ("publish", ["--workdir=w", "--base_path=b", "--version=0"], "--version=0"),
        ("publish", ["--workdir=w", "--base_path=b", "w"], "Unexpected argument 'w'"),
        ("verify", [], "Flag --model must have a value"),
        ("verify", ["--model=none"], "error: There is no SavedModel at 'none'"),
    ],
)
def test_errors_are_for_people(module, options, message):
    done = _command(module, *options)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
