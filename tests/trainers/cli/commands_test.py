"""The commands as a person meets them: real processes, ended by the flags, before TensorFlow."""

import subprocess
import sys

import pytest


def train(*arguments):
    """(exit status, what is printed) of the command."""
    command = [sys.executable, "-m", "trainers.train", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config.loss.gama=64"],
            "error: --config.loss.gama=64: the recipe has no field 'gama'. Did you mean 'gamma'?",
        ),
        (
            ["--config.los.gamma=64"],
            "error: --config.los.gamma=64: the recipe has no field 'los'. Did you mean 'loss'?",
        ),
        (
            ["--config.zzz=64"],
            "error: --config.zzz=64: the recipe has no field 'zzz'. "
            "See configs/base.py for the fields.",
        ),
        (
            ["--config.steps=many"],
            "error: flag --config.steps=many: invalid literal for int() with base 10: 'many'",
        ),
        (
            ["--config.steps.x=64"],
            "error: --config.steps.x=64: the recipe has no field 'x'. "
            "See configs/base.py for the fields.",
        ),
        (
            ["--config.data_service=host:5050"],
            "error: --config.data_service=host:5050: the recipe has no field 'data_service'. "
            "There is no tf.data service any more: leave it out, each worker prepares its own "
            "batches. Where that is too slow, see Input in docs/distributed-training.md.",
        ),
        (
            ["--data_service_workers=2"],
            "error: Unknown command line flag 'data_service_workers'. "
            "There is no tf.data service any more: leave it out, each worker prepares its own "
            "batches. Where that is too slow, see Input in docs/distributed-training.md.",
        ),
        (["--zzz"], "error: Unknown command line flag 'zzz'. See --help."),
        (["--workdri=x"], "error: Unknown command line flag 'workdri'. Did you mean: workdir ?"),
        (["here"], "error: Unexpected argument 'here': options are written --name=value."),
    ],
)
def test_flags_that_cannot_be(arguments, message, tmp_path):
    found = train("--config=configs/digits.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert found == (2, message)
    assert not (tmp_path / "run").exists()


def test_missing_recipe(tmp_path):
    assert train("--config=configs/digit.py", f"--workdir={tmp_path}") == (
        1,
        "error: There is no recipe 'configs/digit.py'. Recipes are the files in configs/.",
    )


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [(["--workdir=x"], "config"), (["--config=configs/digits.py"], "workdir")],
)
def test_required_flags(arguments, flag):
    status, message = train(*arguments)
    assert status == 2 and message.startswith("error: ") and f"--{flag}" in message
    assert "\n" not in message


def test_a_recipe_that_is_wrong_itself_keeps_its_traceback(tmp_path):
    recipe = tmp_path / "wrong.py"
    recipe.write_text("from configs import digits\nget_config = lambda: digits.get_config().stepz")
    status, printed = train(f"--config={recipe}", "--workdir=x", "--config.steps=3")
    assert status == 1 and printed.startswith("Traceback") and "stepz" in printed


def test_a_file_that_is_no_recipe():
    status, printed = train("--config=configs/paper.py", "--workdir=runs/none")
    assert status == 2
    assert printed == "error: The file of --config has no function get_config: it is no recipe."
