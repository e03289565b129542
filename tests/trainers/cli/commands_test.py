"""The commands as a person meets them: real processes, ended by the flags, before TensorFlow."""

import pytest

from tests import processes


def train(*arguments):
    """(exit status, what is printed) of the command."""
    done = processes.run("-m", "trainers.train", *arguments)
    return done.returncode, (done.stdout + done.stderr).strip()


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
        (
            ["--noconfig.zzz"],
            "error: --noconfig.zzz: the recipe has no field 'zzz'. "
            "See configs/base.py for the fields.",
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


@pytest.mark.parametrize("options", [[], ["--config.steps=3"]])
def test_missing_recipe(options, tmp_path):
    assert train("--config=configs/digit.py", f"--workdir={tmp_path}", *options) == (
        1,
        "error: There is no recipe 'configs/digit.py'. Recipes are the files in configs/.",
    )


@pytest.mark.parametrize(
    ("error", "status", "printed"),
    [
        ("commands.ConfigError('no')", 1, "error: no"),
        ("errors.UserError('no')", 1, "error: no"),
        ("ImportError('no package')", 1, "error: no package"),
        ("OSError(28, 'No space left', 'a')", 1, "error: [Errno 28] No space left: 'a'"),
        ("KeyboardInterrupt()", 130, "error: Interrupted."),
        ("SystemExit(75)", 75, ""),
    ],
)
def test_errors_for_people_are_known_by_their_type(error, status, printed):
    code = f"""
from circle_tf.utils import errors
from trainers.cli import commands
def main(argv):
    raise {error}
commands.run(main)"""
    done = processes.run("-c", code)
    assert (done.returncode, done.stderr.strip()) == (status, printed)


def test_other_errors_keep_their_traceback():
    code = "from trainers.cli import commands; commands.run(lambda argv: [][0])"
    done = processes.run("-c", code)
    assert done.returncode == 1 and done.stderr.startswith("Traceback")


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [(["--workdir=x"], "config"), (["--config=configs/digits.py"], "workdir")],
)
def test_required_flags(arguments, flag):
    status, message = train(*arguments)
    assert status == 2 and message.startswith("error: ") and f"--{flag}" in message
    assert "\n" not in message


@pytest.mark.parametrize("rates", ["", "a", "0.01,1", "nan"])
def test_rates_that_are_none(rates):
    done = processes.run(
        "-m", "trainers.evaluate", "--workdir=none", f"--false_accept_rates={rates}"
    )
    assert done.returncode == 1
    assert "error: --false_accept_rates must be numbers above 0 and below 1" in done.stderr


def test_a_recipe_that_is_wrong_itself_keeps_its_traceback(tmp_path):
    recipe = tmp_path / "wrong.py"
    recipe.write_text("from configs import digits\nget_config = lambda: digits.get_config().stepz")
    status, printed = train(f"--config={recipe}", "--workdir=x", "--config.steps=3")
    assert status == 1 and printed.startswith("Traceback") and "stepz" in printed


def test_a_file_that_is_no_recipe():
    status, printed = train("--config=configs/paper.py", "--workdir=runs/none")
    assert status == 2
    assert printed == "error: The file of --config has no function get_config: it is no recipe."


_SHOW_LOSS = """
from absl import app, flags
from ml_collections import config_flags
from trainers.cli import commands
flag = config_flags.DEFINE_config_file("config", None, "", lock_config=True)
def main(argv):
    loss = commands.recipe(flag)[0].loss
    print(loss.name, loss.margin, loss.gamma)
commands.run(main)
"""


@pytest.mark.parametrize(
    ("recipe", "options", "expected"),
    [
        ("folder", [], "circle 0.4 80.0"),
        ("folder", ["name=class_circle"], "class_circle None None"),
        ("folder", ["name=n_pairs"], "n_pairs None None"),
        ("folder", ["name=class_circle", "gamma=64"], "class_circle None 64.0"),
        ("folder", ["gamma=64", "margin=0.3", "name=circle_head"], "circle_head 0.3 64.0"),
        ("folder", ["name=keras_circle"], "keras_circle 0.4 80.0"),
        ("market1501", ["name=circle_head"], "circle_head 0.25 128.0"),
        ("market1501", ["name=circle"], "circle None None"),
        ("glyphs.py:class_circle", ["name=class_circle"], "class_circle 0.25 32.0"),
    ],
)
def test_margin_and_gamma_follow_the_kind_of_loss(recipe, options, expected):
    config = f"configs/{recipe}" if ":" in recipe else f"configs/{recipe}.py"
    words = [f"--config={config}", *(f"--config.loss.{option}" for option in options)]
    *told, found = processes.printed("-c", _SHOW_LOSS, *words).splitlines()
    assert found == expected
    assert len(told) == ("None" in expected)


def test_values_of_another_kind_of_loss_are_told_of():
    words = ["--config=configs/folder.py", "--config.loss.name=class_circle"]
    told = processes.printed("-c", _SHOW_LOSS, *words).splitlines()[0]
    assert told == (
        "The recipe's margin 0.4 and gamma 80 are for the loss circle; class_circle takes its own "
        "defaults, or what --config.loss.margin and --config.loss.gamma say."
    )


def test_keras_own_loss_has_no_gamma_that_grows():
    words = ["--config=configs/glyphs.py", "--config.loss.name=keras_circle"]
    told, found = processes.printed("-c", _SHOW_LOSS, *words).splitlines()
    assert told.startswith("The recipe's gamma_start 4 is for the loss circle; keras_circle takes")
    assert found == "keras_circle 0.25 32.0"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_help_that_nobody_reads(unbuffered):
    _, printed = processes.unread("-m", "trainers.train", "--help", PYTHONUNBUFFERED=unbuffered)
    assert printed == ""


def test_output_that_nobody_reads():
    code = "from trainers.cli import commands; commands.run(lambda argv: print('text'))"
    assert processes.unread("-c", code) == (141, "")


@pytest.mark.parametrize("given", ["in the recipe's file", "on the command line"])
def test_a_home_folder_that_the_shell_did_not_expand(tmp_path, given):
    of_file, option = "~/photos", []
    if "file" not in given:
        of_file, option = "", ["--config.dataset.path=~/photos"]
    (tmp_path / "mine.py").write_text(
        "from configs import base\n\n\ndef get_config():\n    config = base.get_config()\n"
        f"    config.dataset.path = {of_file!r}\n    return config\n"
    )
    code = (
        "from ml_collections import config_flags; from trainers.cli import commands; "
        "config = config_flags.DEFINE_config_file('config'); "
        "commands.run(lambda argv: print(commands.recipe(config)[0].dataset.path))"
    )
    done = processes.run("-c", code, "--config=~/mine.py", *option, HOME=str(tmp_path))
    assert done.stdout.strip() == f"{tmp_path}/photos", done.stderr
