"""The thresholds that a version decides by: chosen from those that `trainers.evaluate` found."""

import math

from circle_tf.serving.signatures import NEEDS_THRESHOLD, as_threshold
from circle_tf.utils import command_lines
from export.cli import console

__all__ = ["DECISIONS", "choose", "summary"]

DECISIONS = ("verification", "search")


def choose(run, *, rate=None, signatures=()):
    """The threshold of each decision.

    Args:
        run: runs.Run.
        rate: float, the false-accept rate wanted; None for the lowest that is reliable, for each
            decision its own.
        signatures: names asked for; some need the threshold of verification.

    Returns:
        dict of `verification` and `search` to a `circle_tf.Threshold` as a dict, its `threshold` as
        the model compares with it; without those that have none.

    Raises:
        console.ExportError: the rate was not measured, or a signature lacks its threshold.
    """
    found = run.decision() or {}
    if rate is not None:
        _check_measured(found, rate, run)
    chosen = {}
    for decision in DECISIONS:
        measured = sorted(found.get(decision, ()), key=lambda one: one["false_accept_rate"])
        if rate is None:
            fitting = [one for one in measured if one["reliable"]]
        else:
            fitting = [one for one in measured if _is_rate(one, rate)]
        if fitting:
            value = as_threshold(fitting[0]["threshold"], "threshold")
            chosen[decision] = fitting[0] | {"threshold": value}
    lacking = sorted(set(signatures) & set(NEEDS_THRESHOLD))
    if lacking and "verification" not in chosen:
        raise console.ExportError(
            f"--signatures={','.join(lacking)}: there is no threshold for verification: "
            f"{_reason(run.decision(), 'verification')}. {_evaluate(run)} measures them."
        )
    return chosen


def summary(published, *, run):
    """What a version decides by, in lines for people.

    Args:
        published: manifest of the version.
        run: runs.Run it was made from.

    Returns:
        list of str.
    """
    lines = []
    verbs = {"verification": "the same from", "search": "unknown below"}
    for decision in DECISIONS:
        one = published["thresholds"].get(decision)
        if one is not None:
            low, high = one["threshold_interval"]
            line = (
                f"{decision:<16} {verbs[decision]} {one['threshold']:.4f} ({low:.4f} to "
                f"{high:.4f}), at a false-accept rate of {one['false_accept_rate']:g}"
            )
            lines.append(line + ("" if one["reliable"] else "; too few examples to know the rate"))
        elif decision == "verification" or published["gallery"] is not None:
            lines.append(f"{decision:<16} no threshold: {_reason(published['decision'], decision)}")
    if published["decision"] is None:
        lines.append(f"{'':<16} {_evaluate(run)} finds them")
    return lines


def _check_measured(found, rate, run):
    if not found or "not_measured" in found:
        reason = f" ({found['not_measured']})" if found else ""
        raise console.ExportError(
            f"--false_accept_rate={rate:g}: no thresholds were measured for this model{reason}. "
            f"Measure them: {_evaluate(run, rate)}"
        )
    if not any(_is_rate(one, rate) for one in found["verification"]):
        rates = ", ".join(f"{one['false_accept_rate']:g}" for one in found["verification"])
        raise console.ExportError(
            f"--false_accept_rate={rate:g} was not measured, {rates} were. Give one of these, or "
            f"measure it: {_evaluate(run, rate)}"
        )


def _is_rate(one, rate):
    return math.isclose(one["false_accept_rate"], rate, rel_tol=1e-9)


def _reason(found, decision):
    if found is None:
        return "none was measured"
    if "not_measured" in found:
        return found["not_measured"]
    rates = ", ".join(f"{one['false_accept_rate']:g}" for one in found[decision])
    return f"too few examples to know {rates}; --false_accept_rate takes one all the same"


def _evaluate(run, rate=None):
    options = [f"--workdir={run.workdir}", *(["--best"] if run.best else [])]
    options += [] if rate is None else [f"--false_accept_rates={rate:g}"]
    return command_lines.python_module("trainers.evaluate", *options)
