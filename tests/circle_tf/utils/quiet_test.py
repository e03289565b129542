import os

import pytest

from circle_tf.utils import quiet
from tests import processes


def say(text):
    """Writes as C++ does, past sys.stderr."""
    os.write(2, text.encode())


def test_what_is_kept_back_is_not_shown(capfd):
    with quiet.stderr_kept_back():
        say("note")
    say("after")
    assert capfd.readouterr().err == "after"


def test_it_is_shown_when_something_goes_wrong(capfd):
    with pytest.raises(OSError, match="gone"), quiet.stderr_kept_back():
        say("note")
        raise OSError("gone")
    assert capfd.readouterr().err == "note"


# A process that imports TensorFlow.
def test_errors_and_quiet_come_without_tensorflow_which_then_says_nothing():
    code = (
        "import sys\n"
        "from circle_tf.utils import errors, quiet\n"
        "assert 'tensorflow' not in sys.modules\n"
        "assert quiet.import_tensorflow(log_level=3) is sys.modules['tensorflow']\n"
        "import os; assert os.environ['TF_CPP_MIN_LOG_LEVEL'] == '3'"
    )
    done = processes.run("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


UNREAD = """
from circle_tf.utils import quiet
with quiet.unread_output():
    print("text")
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_what_is_printed(unbuffered):
    assert processes.unread("-c", UNREAD, PYTHONUNBUFFERED=unbuffered) == (141, "")


def test_pipes_of_others_break_loudly():
    with pytest.raises(BrokenPipeError, match="of another"), quiet.unread_output():
        raise BrokenPipeError("of another")
