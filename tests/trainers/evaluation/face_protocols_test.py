"""What a command's flags ask for."""

import pytest

from trainers.cli import commands
from trainers.evaluation import face_protocols


def test_nothing_asked_is_nothing_done():
    assert face_protocols.asked_for() == {}


def test_names_are_those_of_files_and_folders():
    asked = face_protocols.asked_for(
        pairs=["a/lfw.bin", "b/lfw_folder/"], probes="p", distractors="d"
    )
    assert list(asked) == ["lfw", "lfw_folder", "identification"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"probes": "a"}, "wants both --probes and --distractors"),
        ({"distractors": "a"}, "wants both"),
        ({"pairs": ["a/lfw.bin", "b/lfw.bin"]}, "Two verification sets are called 'lfw'"),
    ],
)
def test_bad_flags(flags, message):
    with pytest.raises(commands.ConfigError, match=message):
        face_protocols.asked_for(**flags)
