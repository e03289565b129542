"""The guard of speed: each case runs, at tiny sizes; what it says of slower ones and keeps."""

import dataclasses
import json
import logging
import types

import numpy as np
import pytest

from benchmarks import quick

TINY = {
    "pair": {"rows": 16, "dim": 8},
    "pair_1024": {"rows": 32, "dim": 8},
    "keras_circle": {"rows": 16, "dim": 8},
    "held": {"classes": 20, "dim": 8, "rows": 8, "held": True},
    "streamed": {"classes": 200, "dim": 8, "rows": 8, "held": False},
    "update": {"classes": 20, "dim": 8, "rows": 8},
    "memory": {"size": 32, "rows": 8, "dim": 8},
    "retrieval": {"rows": 40, "dim": 8},
    "sampler": {"classes": 40, "batches": 2},
    "training": {"rows": 8, "count": 1},
    "serving": {"rows": 2},
}
# They compile much; `serving` saves a net and starts a process; `pair_1024` is `pair`.
SLOW = ("pair_1024", "keras_circle", "update", "training", "serving")


def committed():
    with open(quick.PATH, encoding="utf-8") as stream:
        return json.load(stream)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in TINY]
)
def test_each_case_runs(name):
    case = dataclasses.replace(quick.CASES[name], sizes=TINY[name])
    assert 0 < quick.measure(case, seconds=0) < np.inf


def test_every_case_is_tried_and_committed():
    assert TINY.keys() == quick.CASES.keys()
    assert list(committed()) == list(quick.CASES)
    for entry in committed().values():
        assert entry["ratio"] > 0 and entry.keys() == {"ratio", "date", "machine"}


def test_the_ratio_is_of_ours_to_the_other_and_what_was_opened_is_closed(monkeypatch):
    closed = []

    def make(stack, *, ours):
        stack.callback(lambda: closed.append(True))
        return lambda: ours, lambda: 2.0

    monkeypatch.setattr(quick.timing, "stopwatch", lambda function, calls=1: function)
    assert quick.measure(quick.Case("a / b", make, {"ours": 3.0}), seconds=0) == 1.5
    assert closed == [True]


@pytest.mark.parametrize(
    ("today", "slower", "strict", "status"),
    [(2.6, False, True, 0), (2.61, True, True, 1), (2.61, True, False, 0), (0.1, False, True, 0)],
)
def test_what_is_slower_is_marked_and_is_an_error_if_asked(
    monkeypatch, tmp_path, capsys, today, slower, strict, status
):
    path = tmp_path / "quick.json"
    path.write_text('{"pair": {"ratio": 2.0}}')
    monkeypatch.setattr(quick, "PATH", str(path))
    monkeypatch.setattr(quick, "measure", lambda case, seconds: today)
    options = {"case": ["pair", "held"], "seconds": 0, "strict": strict, "write": False}
    monkeypatch.setattr(quick.flags, "FLAGS", types.SimpleNamespace(**options))
    # What a command says less is said by the tests after it.
    monkeypatch.setattr(quick.logging, "set_verbosity", lambda level: None)
    monkeypatch.setattr(quick.tf, "get_logger", lambda: logging.Logger("unused"))
    assert quick.main([]) == status
    told = capsys.readouterr()
    pair, held = told.out.splitlines()[-2:]
    assert pair.endswith("| slower |" if slower else "|  |") and "| 2 |" in pair
    assert "| - |" in held and held.endswith("|  |")
    assert ("slower than 1.3 times what is committed: pair" in told.err) == slower


def test_what_is_written_is_read_again_and_other_cases_keep_theirs(tmp_path):
    path = tmp_path / "quick.json"
    before = {"held": {"ratio": 2.0}, "pair": {"ratio": 1.0}, "gone": {"ratio": 3.0}}
    quick.write(str(path), {"pair": 1.23456}, before)
    found = json.loads(path.read_text())
    assert list(found) == ["pair", "held"] and found["held"] == {"ratio": 2.0}
    assert found["pair"]["ratio"] == 1.23 and found["pair"]["machine"] == quick.machine()
