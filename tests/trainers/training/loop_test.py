import contextlib
import os
import random
import re
import shlex
import shutil
import signal
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from circle_tf import run_files
from configs import digits
from tests import disks, processes, stopped_runs
from tests.pictures import picture
from trainers.cli import commands
from trainers.datasets import base
from trainers.distributed import preemption
from trainers.evaluation import metrics
from trainers.outputs import artifacts, report
from trainers.outputs import workdir as workdirs
from trainers.training import checkpoints, loop


def recipe(**changes):
    """A run of seconds; without determinism, which would bind the other tests of the process."""
    config = digits.get_config()
    config.deterministic = False
    config.steps, config.eval_every, config.checkpoint_every = 12, 5, 4
    config.loss.gamma_start = 16.0
    config.update(changes)
    return config


class Watcher(keras.callbacks.Callback):
    """Notes what an epoch's end has brought by the time it reaches callbacks of the caller."""

    def __init__(self, path):
        super().__init__()
        self._files, self.seen = workdirs.Workdir(path), []

    def on_epoch_end(self, epoch, logs=None):
        lines = len(workdirs.MetricsLog(self._files.metrics).records())
        self.seen.append((epoch, lines, "val_recall_at_1" in logs))


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A finished run and what a callback saw of it."""
    path = str(tmp_path_factory.mktemp("runs") / "whole")
    watcher = Watcher(path)
    files = loop.train(recipe(), workdir=path, config_name="digits", callbacks=[watcher])
    return files, watcher.seen


@pytest.fixture(scope="module")
def finished(watched):
    """A finished run."""
    return watched[0]


@pytest.fixture
def unrendered(monkeypatch):
    """The test's own runs make their figures and render none, which would be a third of them."""
    monkeypatch.setattr(artifacts, "_write", lambda figures, **_: None)


def test_an_unreadable_file_is_named(tmp_path):
    for label in range(4):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        (tmp_path / "photos" / str(label) / "0.png").write_bytes(picture(seed=label))
    bad = tmp_path / "photos" / "1" / "bad.png"
    bad.write_text("a text")
    config = recipe(steps=2)
    photos = str(tmp_path / "photos")
    config.dataset.update(name="folder", path=photos, test_path=photos, image_size=28, verify=False)
    config.batch.update(classes_per_batch=4, examples_per_class=2)
    with pytest.raises(base.DataError, match=f"^{bad} cannot be read: Unknown image file format"):
        loop.train(config, workdir=str(tmp_path / "run"))


def test_run_files(finished):
    run = workdirs.read_json(finished.run)
    assert run["step"] == 12 and run["config_name"] == "digits"
    assert run["image_shape"] == [8, 8, 1] and run["embedding_dim"] == 32
    assert run["metrics"]["step"] == 12 and run["metrics"]["val_recall_at_1"] > 0
    assert run["versions"]["keras"] == keras.__version__
    assert finished.recipe().to_dict() == recipe(precision="float32").to_dict()
    assert (run["precision"], run["jit"], run["deterministic"]) == ("float32", False, False)
    plots = {"similarity_scatter.png", "similarity_histograms.png", "training_curves.png"}
    assert set(os.listdir(finished.plots)) >= plots
    assert {"projector_config.pbtxt", "sprite.png"} <= set(os.listdir(finished.tensorboard))


def test_log_has_a_line_per_evaluation(finished):
    records = workdirs.MetricsLog(finished.metrics).records()
    assert [record["step"] for record in records] == [5, 10, 12]
    wanted = {"loss", "learning_rate", "s_p", "s_n", "valid_anchors", "val_recall_at_1"}
    assert all(wanted <= set(record) for record in records)
    assert records[-1]["learning_rate"] == 0
    # The value after the update: 8 of 12 grow.
    assert records[0]["gamma"] == pytest.approx(16 * (80 / 16) ** (5 / 8), rel=1e-5)
    assert records[-1]["gamma"] == 80


def test_the_best_model_is_kept_by_the_validation_metric(finished):
    records = workdirs.MetricsLog(finished.metrics).records()
    highest = max(records, key=lambda record: record["val_mean_average_precision_at_r"])
    kept = run_files.read_best(finished)
    assert kept["step"] == highest["step"]
    assert kept["value"] == highest["val_mean_average_precision_at_r"]
    assert set(metrics.VALIDATED) == {name for name in highest if name.startswith("val_")}
    report.evaluate_run(finished.path, best=True)
    evaluated = workdirs.read_json(finished.evaluation)
    assert evaluated["model"] == {"file": "best.keras", "step": kept["step"]}
    found = evaluated["leave_one_out"]["mean_average_precision_at_r"]
    assert found == pytest.approx(kept["value"], abs=1e-5)


def test_callbacks_of_the_caller_see_epochs_evaluated_and_logged(watched):
    assert watched[1] == [(0, 1, True), (1, 2, True), (2, 3, True)]


def test_no_file_is_left_half_written(finished):
    names = [name for _, _, names in os.walk(finished.path) for name in names]
    assert not [name for name in names if "partial" in name or "writing" in name]


def test_model_takes_raw_pixels_and_gives_unit_embeddings(finished):
    model = keras.models.load_model(finished.model)
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    embeddings = model(images).numpy()
    assert embeddings.shape == (3, 32) and embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)


def test_a_finished_run_is_left_alone(finished, capsys):
    before = os.stat(finished.model).st_mtime_ns
    loop.train(recipe(), workdir=finished.path)
    assert "finished run of this recipe" in capsys.readouterr().out
    assert os.stat(finished.model).st_mtime_ns == before


def test_a_finished_run_of_another_recipe_is_refused(finished):
    with pytest.raises(commands.ConfigError, match="seed: the run has 0, the command 1"):
        loop.train(recipe(seed=1), workdir=finished.path)


@pytest.mark.parametrize("finish", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_run_cannot_become_shorter_than_it_is(finish, finished, tmp_path):
    path = str(tmp_path / "run")
    shutil.copytree(finished.path, path)
    if not finish:
        os.remove(workdirs.Workdir(path).run)
    with pytest.raises(commands.ConfigError, match="has done 12 steps; the command asks for 11"):
        loop.train(recipe(steps=11), workdir=path)


class FillsDisk(keras.callbacks.Callback):
    """Leaves hardly any room once an epoch has ended."""

    def __init__(self, room):
        super().__init__()
        self._room = room

    def on_epoch_end(self, epoch, logs=None):
        self._room.enter_context(disks.full_beyond(20_000))


def test_a_disk_that_fills_up_is_told_in_one_sentence(tmp_path):
    path, config = str(tmp_path / "run"), recipe(steps=4, eval_every=2, checkpoint_every=1)
    with contextlib.ExitStack() as room, pytest.raises(OSError) as error:
        loop.train(config, workdir=path, callbacks=[FillsDisk(room)])
    assert str(error.value).startswith(f"{path}/checkpoints cannot be written to: File too large.")
    assert "give the same command again" in str(error.value) and "\n" not in str(error.value)
    assert checkpoint_step(path) == 1


def test_a_workdir_that_cannot_be_made_is_told_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "run")
    with pytest.raises(OSError, match=f"{path} cannot be written to: Not a directory. Make room"):
        loop.train(recipe(), workdir=path)


def test_a_workdir_in_use_is_refused(tmp_path):
    path = str(tmp_path / "run")
    with workdirs.Workdir(path).locked():
        with pytest.raises(commands.ConfigError, match=r"Another training .*process \d+ on "):
            loop.train(recipe(), workdir=path)
    assert os.listdir(path) == [".lock"]


class Weights(keras.callbacks.Callback):
    """Notes the trained weights after each step, and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.steps, self.ends = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self._now())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self._now())

    def _now(self):
        return [variable.numpy() for variable in self.model.trainable_variables]


def averaging(**changes):
    config = recipe(checkpoint_every=2, **changes)
    config.optimizer.ema_momentum = 0.7
    config.loss.update(name="class_circle", margin=None, gamma=None, gamma_start=None)
    return config


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    """A finished run with averaged weights, those after each step, and their averages."""
    notes, path = Weights(), str(tmp_path_factory.mktemp("runs") / "averaged")
    files = loop.train(averaging(), workdir=path, callbacks=[notes])
    means = [notes.steps[0]]
    for step in notes.steps[1:]:
        pairs = zip(means[-1], step, strict=True)
        means.append([0.7 * mean + 0.3 * value for mean, value in pairs])
    return files, notes, means


def assert_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_is_kept_of_averaged_weights_are_the_averages(averaged):
    files, notes, means = averaged
    for end, step in zip(notes.ends, (5, 10, 12), strict=True):
        assert_close(end, means[step - 1])
    best = run_files.read_best(files)
    for path, step in ((files.model, 12), (files.best, best["step"])):
        kept = keras.models.load_model(path).trainable_variables
        assert_close(kept, means[step - 1][:-1])  # Behind the embeddings are the class weights.
    kept = np.load(files.class_weights)["class_weights"]
    assert_close([kept], means[-1][-1:])
    assert np.abs(kept - notes.steps[-1][-1]).max() > 1e-4
    report.evaluate_run(files.path, best=True)
    found = workdirs.read_json(files.evaluation)["leave_one_out"]["mean_average_precision_at_r"]
    assert found == pytest.approx(best["value"], abs=1e-5)


def test_checkpoints_hold_the_weights_that_train_and_their_averages(averaged):
    files, notes, means = averaged
    reader = tf.train.load_checkpoint(os.path.join(files.checkpoints, "ckpt-12"))
    shapes = reader.get_variable_to_shape_map()
    for expected in (notes.steps[-1], means[-1]):
        for value in expected:
            held = [reader.get_tensor(n) for n, shape in shapes.items() if shape == [*value.shape]]
            assert any(np.allclose(one, value, atol=1e-5) for one in held)


# Slow: four trainings.
@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_runs_stopped_amid_an_accumulation_end_as_uninterrupted_ones(tmp_path, monkeypatch):
    config = recipe(checkpoint_every=2, gradient_accumulation=3)
    whole = loop.train(config, workdir=str(tmp_path / "whole"))
    path = str(tmp_path / "stopped")
    with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
        stopped_runs.stop_after(context, 4)
        loop.train(config, workdir=path)
    rest = loop.train(config, workdir=path)
    for one, other in zip(stopped_runs.weights(whole), stopped_runs.weights(rest), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    plain = loop.train(recipe(), workdir=str(tmp_path / "plain"))
    assert any(
        np.abs(one - other).max() > 1e-3
        for one, other in zip(stopped_runs.weights(whole), stopped_runs.weights(plain), strict=True)
    )


# Within an epoch; slow, as each is two more trainings: at the end of one, at the end of the run.
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("step", "moment"),
    [
        (4, "after saving"),
        pytest.param(10, "after saving", marks=pytest.mark.slow),
        pytest.param(12, "before saving", marks=pytest.mark.slow),
    ],
)
def test_stopped_runs_end_as_uninterrupted_ones(finished, step, moment, tmp_path, monkeypatch):
    save = checkpoints.Checkpoints.save

    def save_and_die(self, at):
        if at == step and moment == "before saving":
            raise stopped_runs.Killed
        save(self, at)
        if at == step:
            raise stopped_runs.Killed

    config, path = recipe(checkpoint_every=2), str(tmp_path / "run")
    with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
        context.setattr(checkpoints.Checkpoints, "save", save_and_die)
        loop.train(config, workdir=path)
    assert not workdirs.Workdir(path).is_finished
    files = loop.train(config, workdir=path)
    for one, other in zip(stopped_runs.weights(finished), stopped_runs.weights(files), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    expected = workdirs.MetricsLog(finished.metrics).records()
    found = workdirs.MetricsLog(files.metrics).records()
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    assert run_files.read_best(files)["step"] == run_files.read_best(finished)["step"]
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, abs=1e-3)


class Notes(keras.callbacks.Callback):
    """Notes what a step leaves: its loss, the number of updates, the scale of the next loss."""

    def __init__(self, scale=None):
        super().__init__()
        self._scale, self.seen = scale, []

    def on_train_begin(self, logs=None):
        if self._scale:
            self.model.optimizer.dynamic_scale.assign(self._scale)

    def on_epoch_end(self, epoch, logs=None):
        optimizer = self.model.optimizer
        updates = int(optimizer.inner_optimizer.iterations)
        self.seen.append((epoch, updates, float(optimizer.dynamic_scale), logs["loss"]))


# Slow: trains three times, with half precision, which a CPU emulates.
@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_a_run_goes_on_in_the_precision_and_at_the_loss_scale_it_had(tmp_path, monkeypatch, capsys):
    def config(precision):
        steps = {"steps": 5, "eval_every": 1, "checkpoint_every": 1, "eval_examples": 20}
        found = recipe(precision=precision, **steps)
        found.batch.update(classes_per_batch=3, examples_per_class=4)
        return found

    whole, first, rest = Notes(1024.0), Notes(1024.0), Notes()
    loop.train(config("mixed_float16"), workdir=str(tmp_path / "whole"), callbacks=[whole])
    path = str(tmp_path / "stopped")
    with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
        stopped_runs.stop_after(context, 3)
        loop.train(config("mixed_float16"), workdir=path, callbacks=[first])
    capsys.readouterr()
    files = loop.train(config("auto"), workdir=path, callbacks=[rest])
    out = capsys.readouterr().out
    assert "The run goes on as it began, with precision=mixed_float16" in out
    assert ": mixed_float16, no XLA, not repeatable bit for bit; choose by" in out
    assert workdirs.read_json(files.run)["precision"] == "mixed_float16"
    found = first.seen + rest.seen
    assert [step for step, *_ in found] == [0, 1, 2, 3, 4]
    assert [state[:3] for state in found] == [state[:3] for state in whole.seen]
    assert whole.seen[-1][2] <= 1024  # Not that of a new optimizer, 32,768.
    losses = [[state[3] for state in notes] for notes in (whole.seen, found)]
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)
    assert len({round(loss, 1) for loss in losses[0]}) == 5  # Other batches, other losses.


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Eight classes of two small images, and a recipe for them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(8):
        (tmp_path / "photos" / f"class{number}").mkdir(parents=True)
        for image in range(2):
            content = picture("png", size=(8, 8), seed=2 * number + image)
            (tmp_path / "photos" / f"class{number}" / f"{image}.png").write_bytes(content)
    config = recipe(steps=2, eval_every=2, checkpoint_every=1)
    config.batch.classes_per_batch = config.batch.examples_per_class = 2
    config.dataset.update(name="folder", path=str(tmp_path / "photos"))
    return tmp_path / "photos", config


def _stopped(config, path, monkeypatch):
    with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
        stopped_runs.stop_after(context, 1)
        loop.train(config, workdir=path)


def test_a_run_does_not_go_on_over_other_data(photos, tmp_path, monkeypatch):
    root, config = photos
    config.loss.update(name="class_circle", margin=None, gamma=None, gamma_start=None)
    path = str(tmp_path / "run")
    _stopped(config, path, monkeypatch)
    root.joinpath("class0").rename(root / "zzz")
    with pytest.raises(commands.ConfigError, match=r"\(added: zzz; gone: class0\)"):
        loop.train(config, workdir=path)
    with pytest.raises(commands.ConfigError, match="would now mean other classes"):
        loop.train(config, workdir=path, allow_changed_data=True)


# Slow: two trainings and an evaluation.
@pytest.mark.slow
def test_a_run_goes_on_over_other_data_when_told_to(photos, tmp_path, monkeypatch, capsys):
    root, config = photos
    path = str(tmp_path / "run")
    _stopped(config, path, monkeypatch)
    held_out = workdirs.read_json(workdirs.Workdir(path).data)["parts"]["test"]["classes"]
    for number in range(8):  # More classes would otherwise hold more and other ones out.
        shutil.copytree(root / "class0", root / f"more{number}")
    files = loop.train(config, workdir=path, allow_changed_data=True)
    assert "The run goes on over it as it is now" in capsys.readouterr().out
    parts = workdirs.read_json(files.data)["parts"]
    assert parts["test"]["classes"] == held_out and len(parts["train"]["classes"]) == 14
    shutil.copytree(root / "class0", root / "later")
    with pytest.warns(UserWarning, match=r"has changed \(added: later\)"):
        report.evaluate_run(files.path)
    assert workdirs.read_json(files.evaluation)["leave_one_out"]["queries"] == 2 * len(held_out)


# Slow: three trainings and a part of one.
@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("killed", [False, True])
def test_a_finished_run_goes_on_when_it_is_lengthened(killed, tmp_path, monkeypatch, capsys):
    def constant(**changes):
        config = recipe(**changes)
        config.optimizer.update(schedule="constant", warmup_steps=0)
        config.loss.gamma_start = None
        return config

    whole = loop.train(constant(), workdir=str(tmp_path / "whole"))
    path = str(tmp_path / "longer")
    loop.train(constant(steps=7), workdir=path)
    longer = constant(eval_every=4, checkpoint_every=1)
    if killed:
        with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
            stopped_runs.stop_after(context, 9)
            loop.train(longer, workdir=path)
        assert not workdirs.Workdir(path).is_finished
    capsys.readouterr()
    files = loop.train(longer, workdir=path)
    out = capsys.readouterr().out
    assert f"Resuming after step {9 if killed else 7}: 12 steps" in out
    assert killed or "follows the schedule of 12 steps" in out
    for one, other in zip(stopped_runs.weights(whole), stopped_runs.weights(files), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert workdirs.read_json(files.run)["step"] == 12 and files.recipe().eval_every == 4
    steps = [record["step"] for record in workdirs.MetricsLog(files.metrics).records()]
    assert steps == [5, 7, 8, 12]


def test_epochs_are_passes_over_the_examples():
    labels = np.repeat(np.arange(5), 24)
    dataset = types.SimpleNamespace(train=types.SimpleNamespace(labels=labels))
    assert loop.run_length(recipe(epochs=3), dataset) == 3 * (120 // 60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more; found 0"),
        ({"eval_every": 0}, "eval_every must be 1 or more; found 0"),
        ({"checkpoint_every": 0}, "checkpoint_every must be 1 or more"),
        ({"keep_best": "val_recall_at_2"}, "keep_best must be one of val_mean_average_prec"),
        ({"keep_checkpoints": 0}, "keep_checkpoints must be 1 or more"),
        ({"batch": {"classes_per_batch": 6}}, "at least classes_per_batch=6 classes, found 5"),
        ({"dataset": {"name": "digit"}}, "glyphs, digits, folder, table, tfrecord"),
        ({"loss": {"name": "circel"}}, "found 'circel'"),
    ],
)
def test_bad_recipes_leave_no_workdir(changes, message, tmp_path):
    path = str(tmp_path / "run")
    with pytest.raises(ValueError, match=message):
        loop.train(recipe(**changes), workdir=path)
    assert not os.path.exists(path)


def test_a_run_that_diverges_stops_and_keeps_what_is_good(tmp_path):
    config = recipe(checkpoint_every=1)
    config.optimizer.learning_rate = 1e38
    files = workdirs.Workdir(str(tmp_path / "run"))
    for _ in range(2):
        with pytest.raises(commands.ConfigError, match="after step 2: .* Step 1 is saved and good"):
            loop.train(config, workdir=files.path)
        assert checkpoint_step(files.path) == 1
    assert workdirs.MetricsLog(files.metrics).records() == []
    assert not os.path.exists(files.model)


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    "loss", ["class_circle", pytest.param("cross_entropy", marks=pytest.mark.slow)]
)
def test_class_level_runs(loss, tmp_path):
    config = recipe(steps=3, eval_every=5)  # Shorter than an epoch.
    config.loss.update(name=loss, margin=None, gamma=None, gamma_start=None)
    files = loop.train(config, workdir=str(tmp_path / "run"))
    model = keras.models.load_model(files.model)
    assert model.output_shape == (None, 32)
    assert [record["step"] for record in workdirs.MetricsLog(files.metrics).records()] == [3]
    assert report.evaluate_run(files.path).evaluation == files.evaluation


def command(path, *arguments, program=("-m", "trainers.train")):
    base = [*program, "--config=configs/digits.py"]
    return [*base, f"--workdir={path}", "--config.steps=60", "--config.eval_every=20", *arguments]


def checkpoint_step(path):
    try:
        with open(os.path.join(path, "checkpoints", "checkpoint"), encoding="utf-8") as file:
            return int(re.search(r'^model_checkpoint_path: "ckpt-(\d+)"', file.read())[1])
    except FileNotFoundError:
        return 0


def kill_after(arguments, path, *, step):
    """Runs the command and kills it, with no chance to tidy up, some time after `step`."""
    with processes.started(*arguments) as process:
        while checkpoint_step(path) < step:
            assert process.poll() is None, "The run ended before it could be killed."
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_an_interrupted_run_saves_and_says_how_to_go_on(tmp_path):
    path = str(tmp_path / "my run")
    again = command(path, "--config.steps=100000", "--config.checkpoint_every=1")
    with processes.started(*again) as process:
        while not checkpoint_step(path):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        notice, stopped, how = process.communicate(timeout=300)[1].splitlines()
    assert process.returncode == preemption.STATUS
    assert "Ctrl-C once more stops at once" in notice
    assert f"after step {checkpoint_step(path)}, which is saved" in stopped
    assert how == f"Go on: {shlex.join(['python', *again])}" and "'" in how


# Slow: six processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_killed_runs_end_bitwise_as_uninterrupted_ones(tmp_path):
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    processes.printed(*command(whole))
    # The interval is another one on purpose: when checkpoints are written must not matter.
    # Steps 20 and 40 end epochs, 4 and 44 lie within one.
    again = [*command(killed), "--config.checkpoint_every=4"]
    for step in (4, 20):
        kill_after(again, killed, step=step)
    # In the middle of writing a checkpoint: its data has its name, its index has not.
    dying = command(
        killed, "--config.checkpoint_every=4", program=("-c", processes.dies_writing(36))
    )
    assert processes.run(*dying).returncode == -signal.SIGKILL
    assert os.path.exists(os.path.join(killed, "checkpoints", "ckpt-36.data-00000-of-00001"))
    assert not os.path.exists(os.path.join(killed, "checkpoints", "ckpt-36.index"))
    kill_after(again, killed, step=44)
    assert "Resuming after step" in processes.printed(*again)
    first, second = workdirs.Workdir(whole), workdirs.Workdir(killed)
    stopped_runs.assert_same(first, second)
    shutil.rmtree(killed)


# Slow: two trainings. Within an epoch, and after the last step, where nothing is left to train.
@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 12])
def test_a_stopped_run_with_averages_ends_as_the_uninterrupted_one(
    averaged, step, tmp_path, monkeypatch
):
    path, notes = str(tmp_path / "run"), Weights()
    with monkeypatch.context() as context, pytest.raises(stopped_runs.Killed):
        stopped_runs.stop_after(context, step)
        loop.train(averaging(), workdir=path)
    files = loop.train(averaging(), workdir=path, callbacks=[notes])
    for found, expected in zip(notes.steps, averaged[1].steps[step:], strict=True):
        assert_close(found, expected)
    assert_close(stopped_runs.weights(files), stopped_runs.weights(averaged[0]))


# Slow: three processes, each of which imports TensorFlow.
@pytest.mark.slow
def test_a_killed_run_with_averages_ends_bitwise_as_the_uninterrupted_one(tmp_path):
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    options = ["--config.optimizer.ema_momentum=0.9", "--config.optimizer.class_rate_factor=10"]
    options += ["--config.loss.name=proxy_anchor"]
    processes.printed(*command(whole, *options))
    again = [*command(killed, *options), "--config.checkpoint_every=4"]
    kill_after(again, killed, step=24)
    assert "Resuming after step" in processes.printed(*again)
    first, second = workdirs.Workdir(whole), workdirs.Workdir(killed)
    stopped_runs.assert_same(first, second)
