import errno
import fcntl
import json
import os
import socket
import subprocess
import sys

import pytest

from configs import digits
from trainers.cli import commands
from trainers.outputs import workdir


@pytest.fixture
def files(tmp_path):
    return workdir.Workdir(str(tmp_path / "run"))


def started(files, config):
    """A run that has reached its first checkpoint."""
    files.check(config)
    files.claim(config)
    os.makedirs(files.checkpoints)


def test_the_same_recipe_is_welcome_again(files):
    started(files, digits.get_config())
    files.check(digits.get_config())


def test_the_recipe_of_an_older_run_is_welcome_on_another_machine(files):
    older = digits.get_config()
    with older.unlocked():
        older.data_service = "host:5050"  # No recipe has it any more.
    older.strategy, older.devices = "mirrored", 2
    started(files, older)
    files.check(digits.get_config())


def test_fields_that_are_newer_than_a_run_have_their_defaults_in_it(files):
    started(files, digits.get_config())
    recipe = workdir.read_json(files.config)
    del recipe["fine_tune"], recipe["loss"]["growth"], recipe["dataset"]["columns"]
    workdir.write_json(files.config, recipe)
    files.check(digits.get_config())
    assert files.recipe().to_dict() == digits.get_config().to_dict()
    other = digits.get_config()
    other.loss.growth = 0.5
    with pytest.raises(commands.ConfigError, match="loss.growth: the run has 0.7, the command 0.5"):
        files.check(other)


def test_auto_is_what_the_run_has(files):
    older = digits.get_config()
    older.update(precision="float32", deterministic=True)  # The defaults before there was auto.
    started(files, older)
    files.check(digits.get_config())
    same = digits.get_config()
    same.deterministic = True
    files.check(same)
    found = files.continued(digits.get_config())
    assert (found.precision, found.jit, found.deterministic) == ("float32", "auto", True)
    other = digits.get_config()
    other.update(precision="mixed_bfloat16", deterministic=False)
    with pytest.raises(commands.ConfigError) as error:
        files.check(other)
    assert "deterministic: the run has True, the command False" in str(error.value)
    assert "precision: the run has 'float32', the command 'mixed_bfloat16'" in str(error.value)


def test_auto_stays_auto_where_no_run_has_begun(files):
    older = digits.get_config()
    older.deterministic = True
    files.claim(older)
    assert files.continued(digits.get_config()).deterministic == "auto"


def test_changed_fields_are_named(files):
    started(files, digits.get_config())
    changed = digits.get_config()
    changed.loss.gamma, changed.seed = 64.0, 7
    with pytest.raises(commands.ConfigError) as error:
        files.check(changed)
    assert "loss.gamma: the run has 80.0, the command 64.0" in str(error.value)
    assert "seed: the run has 0, the command 7" in str(error.value)
    assert "Give another --workdir" in str(error.value)
    assert str(error.value).count("the run has") == 2


def test_length_and_intervals_may_change(files):
    started(files, digits.get_config())
    assert not files.is_lengthened(digits.get_config())
    changed = digits.get_config()
    changed.eval_every = changed.eval_examples = changed.checkpoint_every = 7
    changed.keep_checkpoints = 1
    changed.keep_best = ""
    files.check(changed)
    assert not files.is_lengthened(changed)
    for name in ("steps", "epochs"):
        longer = digits.get_config()
        longer[name] = 1000
        files.check(longer)
        assert files.is_lengthened(longer)


def test_a_finished_run_goes_on_to_more_steps_only(files):
    started(files, digits.get_config())
    files.check_length(1)
    workdir.write_json(files.run, {"step": 200})
    files.check_length(300)
    with pytest.raises(commands.ConfigError, match="has done 200 steps; the command asks for 199"):
        files.check_length(199)
    os.rmdir(files.checkpoints)
    with pytest.raises(commands.ConfigError, match="its checkpoints are gone"):
        files.check_length(300)


def test_a_run_that_goes_on_is_not_finished(files):
    started(files, digits.get_config())
    workdir.write_json(files.run, {"step": 200})
    workdir.write_json(files.evaluation, {})
    files.claim(digits.get_config())
    assert not files.is_finished and not os.path.exists(files.evaluation)


def test_a_run_without_checkpoint_has_nothing_to_lose(files):
    files.claim(digits.get_config())
    changed = digits.get_config()
    changed.loss.gamma = 64.0
    workdir.write_json(files.best_record, {})
    files.check(changed)
    files.claim(changed)
    assert not os.path.exists(files.best_record)
    assert files.recipe().loss.gamma == 64.0


def test_a_lost_recipe_is_not_guessed(files):
    started(files, digits.get_config())
    os.remove(files.config)
    with pytest.raises(commands.ConfigError, match="the run has None"):
        files.check(digits.get_config())


def test_a_file_is_no_workdir(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(commands.ConfigError, match="is a file"):
        workdir.Workdir(str(tmp_path / "run")).check(digits.get_config())


def test_a_second_training_is_refused_and_told_of_the_first(files):
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    with files.locked(), pytest.raises(commands.ConfigError) as error:
        with workdir.Workdir(files.path).locked():
            pass
    assert f"Another training writes to {files.path} now ({holder})" in str(error.value)
    assert "give another --workdir" in str(error.value) and "\n" not in str(error.value)
    with files.locked():  # It is free again.
        pass


def test_the_lock_of_a_killed_process_is_no_lock(files):
    text = (
        "import os, signal, sys\nfrom trainers.outputs import workdir\n"
        "with workdir.Workdir(sys.argv[1]).locked(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", text, files.path], check=False).returncode == -9
    assert os.path.getsize(files.lock) > 0
    with files.locked():
        pass


def test_a_disk_without_locks_is_warned_of(files, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match=r"has no locks \(No locks available\)"), files.locked():
        pass


def test_recipes_round_trip(files):
    files.claim(digits.get_config())
    assert files.recipe().to_dict() == digits.get_config().to_dict()


def test_no_run_says_how_to_make_one(files):
    with pytest.raises(commands.ConfigError, match="python -m trainers.train"):
        files.recipe()


def test_finished_is_run_json(files):
    files.claim(digits.get_config())
    assert not files.is_finished
    workdir.write_json(files.run, {})
    assert files.is_finished


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "a.json")
    workdir.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        workdir.write_json(path, {"a": object()})
    assert workdir.read_json(path) == {"a": 1}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.fixture
def log(tmp_path):
    log = workdir.MetricsLog(str(tmp_path / "metrics.jsonl"))
    for step in (10, 20, 30):
        log.append({"step": step, "loss": step / 3})
    return log


def test_records_come_back_exactly(log):
    assert log.records() == [{"step": step, "loss": step / 3} for step in (10, 20, 30)]


def test_a_line_is_a_json_object(log, tmp_path):
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [10, 20, 30]


@pytest.mark.parametrize(("step", "kept"), [(0, 0), (10, 1), (29, 2), (30, 3), (99, 3)])
def test_truncation_keeps_up_to_the_step(log, step, kept):
    log.truncate(step)
    assert [record["step"] for record in log.records()] == [10, 20, 30][:kept]


def test_a_line_cut_by_a_kill_is_dropped(log, tmp_path):
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')
    assert len(log.records()) == 3
    log.truncate(40)
    log.append({"step": 40, "loss": 1.0})
    assert [record["step"] for record in log.records()] == [10, 20, 30, 40]


def test_no_log_yet(tmp_path):
    log = workdir.MetricsLog(str(tmp_path / "none.jsonl"))
    log.truncate(5)
    assert log.records() == [] and os.listdir(tmp_path) == []
