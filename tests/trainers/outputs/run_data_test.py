import numpy as np
import pytest

from configs import digits
from trainers import datasets
from trainers.cli import commands
from trainers.datasets import base, inventory
from trainers.outputs import run_data, workdir


def _dataset(train, test):
    """One example of each class, in memory."""
    splits = [
        base.Split(np.zeros([len(names), 2, 2, 1], np.uint8), range(len(names)), tuple(names))
        for names in (train, test)
    ]
    return base.Dataset("own", *splits, None, None, (2, 2, 1), "")


def _inventory(train, test):
    return inventory.take(_dataset(train, test))


@pytest.fixture
def files(tmp_path):
    """A run that began on the classes a, b and c, and held d and e out."""
    files = workdir.Workdir(str(tmp_path / "run"))
    files.claim(digits.get_config())
    run_data.keep(files, _inventory("abc", "de"))
    (tmp_path / "run" / "checkpoints").mkdir()
    return files


@pytest.mark.parametrize("counts_classes", [False, True])
def test_the_same_data_is_welcome(counts_classes, files, capsys):
    run_data.check(files, _inventory("abc", "de"), counts_classes=counts_classes)
    assert capsys.readouterr().out == ""


def test_changes_are_refused_by_name(files):
    with pytest.raises(commands.ConfigError) as error:
        run_data.check(files, _inventory("abdf", "e"), counts_classes=False)
    message = str(error.value)
    assert "(added: f; gone: c; moved from test to train: d)" in message
    assert "--allow_changed_data" in message and "\n" not in message


def test_pair_wise_runs_go_on_when_told_to(files, capsys):
    now = _inventory("abf", "de")
    run_data.check(files, now, counts_classes=False, allow_changes=True)
    assert "added: f; gone: c" in capsys.readouterr().out
    run_data.keep(files, now)
    assert workdir.read_json(files.data)["trained_before"] == ["c"]
    run_data.check(files, now, counts_classes=False)  # From now on that is the run's data.


@pytest.mark.parametrize("train", ["abcf", "ab", "acb", "abf"])
def test_rows_of_class_weights_never_change_their_meaning(train, files):
    with pytest.raises(commands.ConfigError, match="would now mean other classes"):
        run_data.check(files, _inventory(train, "de"), counts_classes=True, allow_changes=True)


def test_class_level_runs_go_on_over_other_unseen_classes(files):
    run_data.check(files, _inventory("abc", "dg"), counts_classes=True, allow_changes=True)


def test_runs_without_a_checkpoint_have_nothing_to_lose(tmp_path):
    files = workdir.Workdir(str(tmp_path / "run"))
    run_data.keep(files, _inventory("abc", "de"))
    run_data.check(files, _inventory("xy", "z"), counts_classes=True)
    run_data.keep(files, _inventory("xy", "z"))
    assert workdir.read_json(files.data)["trained_before"] == []


def test_older_runs_go_on(files, tmp_path):
    (tmp_path / "run" / "data.json").unlink()
    run_data.check(files, _inventory("xy", "z"), counts_classes=True)
    run_data.warn(files, _dataset("xy", "z"))


def test_evaluation_of_the_same_data_is_silent(files):
    run_data.warn(files, _dataset("abc", "de"))


def test_evaluation_warns_of_what_was_trained_on(files):
    with pytest.warns(UserWarning) as found:
        run_data.warn(files, _dataset("ac", "bde"))
    changed, seen = (str(warning.message) for warning in found)
    assert "moved from train to test: b" in changed
    assert "though the run was trained on them: b." in seen


def test_evaluation_warns_of_what_was_trained_on_before_the_data_changed(files):
    run_data.keep(files, _inventory("ab", "cde"))
    with pytest.warns(UserWarning, match="trained on them: c"):
        run_data.warn(files, _dataset("ab", "cde"))


def test_testing_on_what_is_trained_on_may_be_meant(tmp_path):
    files = workdir.Workdir(str(tmp_path / "run"))
    run_data.keep(files, _inventory("ab", "ab"))
    workdir.write_json(files.run, {})
    run_data.warn(files, _dataset("ab", "ab"))


def test_data_sets_that_hold_nothing_out_load_as_ever(tmp_path):
    files = workdir.Workdir(str(tmp_path / "run"))
    config = digits.get_config()
    run_data.keep(files, inventory.take(datasets.load(config.dataset)))
    workdir.write_json(files.run, {})
    assert run_data.load(files, config).test.class_names == ("5", "6", "7", "8", "9")
