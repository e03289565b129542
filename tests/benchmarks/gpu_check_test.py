"""The check of a GPU: its table, its time, and what fails in it; a real run at small sizes."""

import json
import subprocess
import sys

import pytest

from benchmarks import gpu_check
from benchmarks.gpu import table

WORKER = "tests.benchmarks.gpu_worker_script"


def check(*sections, seconds=60.0, apart=False):
    groups = gpu_check.groups_of(sections, apart=apart)
    shown = []
    rows = gpu_check.run(groups, seconds=seconds, small=True, tell=shown.append, module=WORKER)
    assert shown == rows
    return [(row["section"], row["verdict"], row["found"]) for row in rows]


def test_the_others_run_after_a_section_that_fails_or_takes_its_process_with_it():
    found = check("good", "raises", "dies", "good")
    assert [row[:2] for row in found] == [
        ("good", "-"),
        ("raises", "FAILED"),
        ("dies", "-"),
        ("dies", "FAILED"),
        ("good", "-"),
    ]
    assert found[1][2] == "ValueError: this section cannot"
    assert found[3][2] == "the process ended with status 7: its last words"


def test_what_hangs_is_ended_and_what_comes_after_the_time_is_skipped():
    found = check("good", "hangs", "good", seconds=3.0)
    assert [row[:2] for row in found] == [("good", "-"), ("hangs", "skipped"), ("good", "skipped")]
    assert all("give more --minutes" in row[2] for row in found[1:])


def test_a_section_that_hangs_leaves_time_to_those_in_other_processes():
    found = check("hangs", "good", seconds=4.0, apart=True)
    assert [row[:2] for row in found] == [("hangs", "skipped"), ("good", "-")]


def test_sections_share_a_process_but_those_that_cut_devices_in_two():
    assert gpu_check.groups_of(["values", "replicas", "pairs"], apart=False) == [
        ["values", "pairs"],
        ["replicas"],
    ]
    assert gpu_check.groups_of(["values", "pairs"], apart=True) == [["values"], ["pairs"]]


@pytest.mark.parametrize(
    ("error", "verdict"), [(1e-3, "pass"), (2e-3, "FAIL"), (float("nan"), "FAIL")]
)
def test_errors_are_held_to_their_limit(error, verdict):
    row = table.judged("loss", {"values": error}, {"values": 1e-3})
    assert row["verdict"] == verdict and (verdict in table.BAD) == (verdict == "FAIL")
    assert row["numbers"]["values at most"] == 1e-3


def test_the_table_is_text_markdown_and_json():
    rows = [{"section": "pairs", **table.measured("a | b", "2 ms", ms=2.0)}]
    assert table.as_text(rows).splitlines()[1].split() == ["pairs", "a", "|", "b", "-", "2", "ms"]
    assert table.as_markdown(rows).splitlines()[2] == r"| pairs | a \| b | - | 2 ms |"
    assert json.loads(table.as_json(rows)) == rows


def run(folder, *arguments):
    """Verdicts and cases of a real run, whose table is written too."""
    path = folder / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--small", f"--output={path}"]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    rows = json.loads(path.read_text())
    assert result.returncode == 0, [row for row in rows if row["verdict"] in table.BAD]
    return rows


# Slow: compiles a loss and its gradient for every row of the table.
@pytest.mark.slow
def test_losses_and_heads_are_checked_on_any_machine(tmp_path):
    rows = run(tmp_path, "--sections=device", "--sections=values", "--minutes=8")
    assert any("TensorFlow" in row["found"] for row in rows if row["section"] == "device")
    checked = {row["case"].partition(",")[0] for row in rows if row["verdict"] == "pass"}
    assert {"circle_loss", "CircleLoss", "PairwiseCircle", "CircleHead", "UnifiedLoss"} <= checked


# Slow: trains, and starts four processes with TensorFlow.
@pytest.mark.slow
def test_all_other_sections_run_on_any_machine(tmp_path):
    others = [name for name in gpu_check.SECTIONS if name not in ("device", "values")]
    rows = run(tmp_path, *(f"--sections={name}" for name in others), "--minutes=9")
    assert {row["section"] for row in rows if row["verdict"] in ("pass", "-")} == set(others)
