"""How commands end: without a word when nobody reads them any more."""

import pytest

from tests import processes


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_reads(unbuffered):
    code = "from export.cli import console; console.run(lambda argv: print('text'))"
    assert processes.unread("-c", code, PYTHONUNBUFFERED=unbuffered) == (141, "")


def test_help_that_nobody_reads():
    _, printed = processes.unread("-m", "export.query", "--help", PYTHONUNBUFFERED="1")
    assert printed == ""


def test_a_home_folder_that_the_shell_did_not_expand(tmp_path):
    code = (
        "from absl import flags; from export.cli import console; "
        "flags.DEFINE_string('path', '', ''); "
        "console.run(lambda argv: print(flags.FLAGS.path))"
    )
    done = processes.run("-c", code, "--path=~/a b", HOME=str(tmp_path))
    assert done.stdout.strip() == f"{tmp_path}/a b"
