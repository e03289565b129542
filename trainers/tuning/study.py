"""A search for the numbers of a recipe: trials, each a training on every fold, side by side."""

import concurrent.futures
import csv
import dataclasses
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import ml_collections
import numpy as np
import tqdm

from circle_tf.utils import command_lines
from circle_tf.utils.files import disk_errors, replacing
from trainers.cli import commands
from trainers.outputs import workdir as workdirs
from trainers.tuning import pictures, recipes

__all__ = ["tune"]

_STARTUP = 5  # trials before others are stopped by comparison
_HOPELESS = 3  # failures in a row at the start after which nothing can be hoped for


def tune(config, *, workdir, space, trials, folds, processes=1, metric, seed=0):
    """Searches for the setting with the highest mean over class-disjoint folds.

    Args:
        config: recipe, ml_collections.ConfigDict.
        workdir: folder of the search; one that was stopped goes on.
        space: dict of a field to a `spaces.Range` or `spaces.Choice`.
        trials: int, settings to try, with those that were tried before.
        folds: int, 2 or more, parts of the training classes.
        processes: int, trainings at a time.
        metric: name in metrics.jsonl, of the last evaluation.
        seed: int, of the search.

    Returns:
        str, the file of the best recipe.

    Raises:
        commands.ConfigError: the folder holds another search, or no setting can be trained.
        OSError: the disk is full, or nothing may be written there.
    """
    files = workdirs.Workdir(workdir)
    with disk_errors(workdir), files.locked():
        _claim(workdir, config, space, folds=folds, metric=metric, seed=seed)
        search = _Search(config, workdir, space, folds, metric, _open(workdir, seed=seed))
        _run(search, trials=trials, processes=processes)
        pictures.draw(search, os.path.join(workdir, "trials.png"))
    return search.best_recipe


def _claim(workdir, config, space, **settings):
    """Refuses a folder of another search."""
    asked = {"config": json.loads(config.to_json()), "space": {}, **settings}
    asked["space"] = {field: repr(values) for field, values in space.items()}
    path = os.path.join(workdir, "search.json")
    if os.path.exists(path):
        if changes := workdirs.changes(workdirs.read_json(path), asked):
            raise commands.ConfigError(
                f"{workdir} holds another search:\n  " + "\n  ".join(changes) + "\n"
                "Give another --workdir for it, or the old values to go on."
            )
    workdirs.write_json(path, asked)


def _open(workdir, *, seed):
    """The study, with trials that a kill left behind to be run anew, in the folders they had."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = optuna.storages.journal.JournalFileBackend(os.path.join(workdir, "trials.log"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(
        study_name="tune", storage=storage, direction="maximize", load_if_exists=True
    )
    # Of a search that goes on, other draws than its first ones again.
    study.sampler = optuna.samplers.TPESampler(
        seed=seed + len(study.trials), multivariate=True, constant_liar=True
    )
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=_STARTUP)
    for trial in study.trials:
        if trial.state == optuna.trial.TrialState.RUNNING:
            study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            study.enqueue_trial(trial.params, user_attrs={"folder": _folder(trial)})
    return study


def _folder(trial):
    return trial.user_attrs.get("folder", f"{trial.number:04d}")


@dataclasses.dataclass(eq=False)
class _Search:
    """What the threads share; each runs one trial at a time."""

    config: ml_collections.ConfigDict
    workdir: str
    space: dict
    folds: int
    metric: str
    study: object
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    running: set = dataclasses.field(default_factory=set)
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def best_recipe(self):
        return os.path.join(self.workdir, "best.py")

    def ended(self):
        """Trials with an end of their own; those that were cut off come again."""
        return [
            trial
            for trial in self.study.trials
            if trial.state.is_finished()
            and (trial.state.name != "FAIL" or "why" in trial.user_attrs)
        ]

    def completed(self):
        return [trial for trial in self.study.trials if trial.state.name == "COMPLETE"]


def _run(search, *, trials, processes):
    """Tries settings until there are enough; Ctrl-C and SIGTERM let the trainings save."""
    left = trials - len(search.ended())
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Off a terminal the lines of the trials tell how far it is.
    with (
        tqdm.tqdm(total=max(0, left) * search.folds, desc="trainings", disable=None) as bar,
        concurrent.futures.ThreadPoolExecutor(processes) as pool,
    ):
        try:
            tasks = [pool.submit(_try, search, bar, processes) for _ in range(left)]
            for task in concurrent.futures.as_completed(tasks):
                task.result()
        except BaseException:
            search.stopped.set()
            for process in list(search.running):
                process.terminate()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
    if not search.completed():
        reasons = [trial.user_attrs["why"] for trial in search.ended() if "why" in trial.user_attrs]
        raise commands.ConfigError(f"No setting could be trained. The last: {reasons[-1]}")


def _try(search, bar, processes):
    """Trains one setting on fold after fold; one that is behind most others is given up."""
    if search.stopped.is_set():
        return
    with search.lock:
        trial = search.study.ask()
        values = {field: kind.suggest(trial, field) for field, kind in search.space.items()}
    scores = []
    for fold in range(search.folds):
        score = _train(search, trial, values, fold, processes)
        if search.stopped.is_set():
            return
        bar.update()
        if isinstance(score, str):
            return _give_up(search, bar, trial, values, score)
        scores.append(score)
        with search.lock:
            trial.report(float(np.mean(scores)), step=fold)
            pruned = fold + 1 < search.folds and trial.should_prune()
        if pruned:
            bar.update(search.folds - fold - 1)
            break
    with search.lock:
        trial.set_user_attr("scores", scores)
        state = "PRUNED" if len(scores) < search.folds else "COMPLETE"
        _tell(search, trial, None if state == "PRUNED" else float(np.mean(scores)), state)
        _keep(search)
    told = " ".join(f"{score:.3f}" for score in scores)
    ending = "" if state == "COMPLETE" else ", behind most others: given up"
    bar.write(f"trial {_folder(trial)}: {np.mean(scores):.4f} ({told}{ending}) at {_told(values)}")


def _give_up(search, bar, trial, values, why):
    """Of a setting that cannot be trained, as one that diverges."""
    bar.write(f"trial {_folder(trial)}: {why} at {_told(values)}")
    with search.lock:
        trial.set_user_attr("why", why)
        _tell(search, trial, None, "FAIL")
        _keep(search)
        if len(search.ended()) >= _HOPELESS and all(
            trial.state.name == "FAIL" for trial in search.ended()
        ):
            raise commands.ConfigError(f"No setting could be trained. The last: {why}")


def _tell(search, trial, value, state):
    import optuna

    search.study.tell(trial, value, state=optuna.trial.TrialState[state])


def _train(search, trial, values, fold, processes):
    """The metric after training without a fold, by a process of its own; or why there is none."""
    folder = os.path.join(search.workdir, "trials", _folder(trial), f"fold{fold}")
    files = workdirs.Workdir(folder)
    if not files.is_finished:
        config = _with(search.config, values)
        config.dataset.folds, config.dataset.fold, config.keep_best = search.folds, fold, ""
        recipe = f"{folder}.py"
        recipes.write(recipe, config, told=f"Fold {fold} of trial {_folder(trial)}.")
        threads = {"TF_NUM_INTRAOP_THREADS": str(max(1, (os.cpu_count() or 1) // processes))}
        process = subprocess.Popen(
            [sys.executable, "-m", "trainers.train", f"--config={recipe}", f"--workdir={folder}"],
            env={**os.environ, **(threads if processes > 1 else {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Signals of the terminal come from here alone.
        )
        search.running.add(process)
        if search.stopped.is_set():
            process.terminate()
        said = process.communicate()[1].decode("utf-8", "replace").strip().splitlines()
        search.running.discard(process)
        if process.returncode:
            return said[-1].removeprefix("error: ") if said else f"status {process.returncode}"
        shutil.rmtree(files.checkpoints, ignore_errors=True)  # Finished: nothing to go on from.
    return float(workdirs.MetricsLog(files.metrics).records()[-1][search.metric])


def _with(config, values):
    found = ml_collections.ConfigDict(config.to_dict())
    for field, value in values.items():
        *sections, name = field.split(".")
        part = found
        for section in sections:
            part = part[section]
        part[name] = value
    return found


def _keep(search):
    """All trials as CSV, and the best recipe so far."""
    path = os.path.join(search.workdir, "trials.csv")
    fields = list(search.space)
    with replacing(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["trial", "state", "mean", *(f"fold{n}" for n in range(search.folds)), *fields]
        )
        for trial in search.ended():
            scores = list(trial.user_attrs.get("scores", ()))
            scores += [""] * (search.folds - len(scores))
            values = [trial.params.get(field, "") for field in fields]
            state = trial.state.name.lower()
            mean = "" if trial.value is None else trial.value
            writer.writerow([_folder(trial), state, mean, *scores, *values])
    if not search.completed():
        return
    best = search.study.best_trial
    spread = np.std(best.user_attrs["scores"], ddof=1)
    told = (
        f"The best of {len(search.ended())} settings that trainers.tune tried.\n\n"
        f"{search.metric} over {search.folds} folds, {datetime.date.today()}: {best.value:.4f}, "
        f"standard deviation {spread:.4f}.\n"
        "Command: "
        + command_lines.python_module(
            "trainers.train", f"--config={search.best_recipe}", "--workdir=runs/tuned"
        )
        + "\n"
    )
    recipes.write(search.best_recipe, _with(search.config, best.params), told=told)


def _told(values):
    return ", ".join(
        f"{field} {value:.4g}" if isinstance(value, float) else f"{field} {value}"
        for field, value in values.items()
    )
