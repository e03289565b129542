"""What the commands say when they cannot: in one line, without a traceback."""

import pytest

from tests import processes


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
        # Slow: it imports TensorFlow first.
        pytest.param(
            *("verify", ["--model=none"], "error: There is no SavedModel at 'none'"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_errors_are_for_people(module, options, message):
    done = processes.run("-m", f"export.{module}", *options)
    assert done.returncode == 1
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
