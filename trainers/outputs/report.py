"""The evaluation of a finished run, for people and as files."""

import os

from circle_tf import run_files
from circle_tf.evaluation.calibration import Calibration
from circle_tf.utils import shares
from circle_tf.utils.files import disk_errors
from trainers.cli import commands
from trainers.evaluation import metrics
from trainers.outputs import artifacts, run_data
from trainers.outputs import workdir as workdirs

__all__ = ["evaluate_run", "open_finished", "table"]


def evaluate_run(
    path,
    *,
    dataset=None,
    protocols=None,
    rerank=False,
    best=False,
    false_accept_rates=metrics.RATES,
):
    """Evaluates a finished run, prints the table, writes evaluation.json and pictures.

    Args:
        path: str, directory of the run.
        dataset: trainers.datasets.Dataset, of a run whose data was given from Python; None: what
            the run's recipe names.
        protocols: dict of name to `fn(model) -> dict of numbers`, as of
            `faces.protocols`: these are told as well.
        rerank: see `metrics.evaluate`.
        best: bool, take the model that was best during training, not the last.
        false_accept_rates: floats above 0 and below 1, to find thresholds for.

    Returns:
        trainers.outputs.workdir.Workdir.

    Raises:
        commands.ConfigError: there is no run, it is not finished, or its model cannot be loaded.
        trainers.datasets.DataError: the data cannot be used.
        OSError: the disk is full, or nothing may be written there; the table is printed.
    """
    files, model, evaluated = open_finished(path, best=best)
    dataset = dataset or run_data.load(files, files.recipe())
    print(dataset.report)
    run_data.warn(files, dataset)
    decided = []
    results = metrics.evaluate(
        model,
        dataset,
        rerank=rerank,
        false_accept_rates=false_accept_rates,
        on_decision=lambda *found: decided.append(found),
    )
    results |= {name: judge(model) for name, judge in (protocols or {}).items()}
    print(table(results))
    with disk_errors(files.path):
        workdirs.write_json(files.evaluation, {**results, "model": evaluated})
        artifacts.draw_retrieval(model, dataset, files=files, step=evaluated["step"])
        for found in decided:  # None where the data allow none.
            artifacts.draw_decision(*found, files=files, step=evaluated["step"])
    return files


def open_finished(path, *, best=False):
    """A finished run and its model.

    Args:
        path: str, directory of the run.
        best: bool, the model that was best during training, not the last.

    Returns:
        `(files, model, which)`: trainers.outputs.workdir.Workdir, keras.Model from pixels to
        embeddings, and a dict of its `file` and `step`.

    Raises:
        commands.ConfigError: there is no run, it is not finished, or its model cannot be loaded.
    """
    files = workdirs.Workdir(path)
    files.recipe()  # Without one there is no run.
    if not files.is_finished:
        raise commands.ConfigError(
            f"The run in {path} is not finished. Go on training it with the command it was "
            "started with."
        )
    try:
        step = (run_files.read_best(files) if best else workdirs.read_json(files.run))["step"]
        model_file = files.best if best else files.model
        model = run_files.load_model(model_file)
    except ValueError as error:
        raise commands.ConfigError(str(error)) from error
    return files, model, {"file": os.path.basename(model_file), "step": step}


def table(results):
    """The metrics of `metrics.evaluate` as text, a protocol per line; last what has none, and why.

    Args:
        results: dict as `metrics.evaluate` returns it.

    Returns:
        str.
    """
    columns = {
        "recall@1": "recall_at_1",
        "R-precision": "r_precision",
        "MAP@R": "mean_average_precision_at_r",
        "queries": "queries",
    }
    cameras = {
        "rank-1": "cmc_at_1",
        "mAP": "map_rectangular",
        "mINP": "minp",
        "queries": "queries",
    }
    verified = {
        "accuracy": "accuracy",
        "over folds ±": "accuracy_std",
        "TAR@FAR=.001": "tar_at_far_0.001",
        "genuine": "genuine",
        "impostors": "impostors",
    }
    templates = {
        "TAR@FAR=1e-5": "tar_at_far_1e-05",
        "1e-4": "tar_at_far_0.0001",
        "1e-3": "tar_at_far_0.001",
        "templates": "templates",
        "pairs": "pairs",
    }
    identified = {
        "rank-1": "rank_1",
        "rank-10": "rank_10",
        "TAR@FAR=1e-6": "tar_at_far_1e-06",
        "pairs": "pairs",
        "distractors": "distractors",
    }
    runs = {
        "error": "error",
        "95 % from": "error_low",
        "to": "error_high",
        "runs": "runs",
        "items": "items",
    }
    lines = []
    for kind in (cameras, columns, verified, templates, identified, runs):
        chosen = {name: r for name, r in results.items() if set(kind.values()) <= set(r)}
        lines += _rows(chosen, kind)
    for found in results.values():
        if "error_of_run" in found:
            lines.append("Error of each run: " + _listed(found["error_of_run"]))
    lines += [
        f"{name.replace('_', '-')}: not measured. {found['not_measured']}"
        for name, found in results.items()
        if "not_measured" in found
    ]
    if "verification" in (decision := results.get("decision", {})):
        lines += ["", "Thresholds of similarity, on unseen classes", ""]
        lines.append(Calibration.from_dict(decision).table())
    return "\n".join(lines)


def _rows(results, columns):
    """A heading and a line per protocol; nothing without protocols."""
    lines = ["".join([f"{'':<18}", *(f"{name:>13}" for name in columns)])] if results else []
    for protocol, report in results.items():
        cells = [report[key] for key in columns.values()]
        shown = [_shown(cell) for cell in cells]
        lines.append(f"{protocol.replace('_', '-'):<18}" + "".join(f"{x:>13}" for x in shown))
    return lines


def _shown(cell):
    if cell is None:
        return "-"
    return f"{cell:,}" if isinstance(cell, int) else shares.as_text(cell, ".3f")


def _listed(numbers):
    return ", ".join(f"{name} {shares.as_text(share, '.3f')}" for name, share in numbers.items())
