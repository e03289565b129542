import os

import keras
import pytest

from circle_tf import backbones
from configs import digits
from tests import disks
from trainers.cli import commands
from trainers.outputs import report, workdir

RESULTS = {
    "one_shot": {
        "recall_at_1": 0.75,
        "r_precision": 0.5,
        "mean_average_precision_at_r": 0.25,
        "queries": 1984,
    }
}


def finished_run(path):
    """A run with a net that was never trained."""
    files = workdir.Workdir(str(path))
    files.claim(digits.get_config())
    keras.utils.set_random_seed(0)
    backbones.build("conv4", (8, 8, 1)).save(files.model)
    workdir.write_json(files.run, {"step": 0})
    return files


def test_table():
    header, line = report.table(RESULTS).splitlines()
    assert header.split() == ["recall@1", "R-precision", "MAP@R", "queries"]
    assert line.split() == ["one-shot", "0.750", "0.500", "0.250", "1,984"]
    assert len(header) == len(line)


def test_table_ends_in_what_could_not_be_measured():
    results = {"re_identification": {"not_measured": "No query has a match: why."}, **RESULTS}
    lines = report.table(results).splitlines()
    assert len(lines) == 3
    assert lines[-1] == "re-identification: not measured. No query has a match: why."


def test_what_is_not_all_is_not_shown_as_all():
    nearly = {"one_shot": RESULTS["one_shot"] | {"recall_at_1": 0.99983, "r_precision": 1.0}}
    line = report.table(nearly).splitlines()[1]
    assert line.split()[1:3] == ["0.9998", "1.000"]


def test_evaluation_is_printed_and_written(tmp_path, capsys):
    files = finished_run(tmp_path / "run")
    report.evaluate_run(files.path)
    written, printed = workdir.read_json(files.evaluation), capsys.readouterr().out
    assert f"{written['leave_one_out']['recall_at_1']:.3f}" in printed
    assert f"{written['decision']['search'][0]['threshold']:.4f}" in printed
    assert written["model"] == {"file": "model.keras", "step": 0}
    assert sorted(os.listdir(files.plots)) == ["decision_thresholds.png", "retrieval_sheet.png"]


def test_a_full_disk_is_told_after_the_numbers(tmp_path, capsys):
    files = finished_run(tmp_path / "run")
    with disks.full_beyond(10), pytest.raises(OSError, match="run cannot be written to: File too"):
        report.evaluate_run(files.path)
    assert "MAP@R" in capsys.readouterr().out


def test_a_run_without_a_best_model_says_so(tmp_path):
    files = finished_run(tmp_path / "run")
    with pytest.raises(commands.ConfigError, match="did not keep its best model"):
        report.evaluate_run(files.path, best=True)


def test_unfinished_runs_are_refused(tmp_path):
    files = finished_run(tmp_path / "run")
    os.remove(files.run)
    with pytest.raises(commands.ConfigError, match="not finished"):
        report.evaluate_run(files.path)


def test_no_run(tmp_path):
    with pytest.raises(commands.ConfigError, match="There is no run"):
        report.evaluate_run(str(tmp_path))


def test_next_command_names_the_run():
    assert workdir.Workdir("runs/mine/").suggested_base_path == os.path.join("models", "mine")


def test_damaged_models_say_so(tmp_path):
    files = finished_run(tmp_path / "run")
    with open(files.model, "w") as file:
        file.write("nonsense")
    with pytest.raises(commands.ConfigError, match="model.keras cannot be loaded"):
        report.evaluate_run(files.path)
