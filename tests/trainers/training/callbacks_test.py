import io
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.outputs import workdir
from trainers.training import callbacks, finite


class Saves:
    """Records when something is saved, in place of checkpoints."""

    def __init__(self, events):
        self.events = events

    def save(self, step):
        self.events.append(("save", step))

    def restore_metrics(self):
        self.events.append("restore metrics")


class Ends(keras.callbacks.Callback):
    """Records when epochs end, as callbacks see it that come before."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("epoch end", epoch))


def fit(*, steps, epochs, callbacks):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.25), "mse", jit_compile=False)
    data = tf.data.Dataset.from_tensors((np.ones([4, 2]), np.ones([4, 1]))).repeat()
    model.fit(
        data, epochs=epochs, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=callbacks
    )


def saves(*, every, step, steps, epoch_steps, fit_steps, epochs=1):
    events = []
    checkpointer = callbacks.Checkpointer(
        Saves(events), every=every, step=step, steps=steps, epoch_steps=epoch_steps
    )
    fit(steps=fit_steps, epochs=epochs, callbacks=[Ends(events), checkpointer])
    return [event for event in events if event != "restore metrics"]


def test_checkpoints_within_an_epoch():
    found = saves(every=2, step=0, steps=5, epoch_steps=5, fit_steps=5)
    assert found == [("save", 2), ("save", 4), ("epoch end", 0), ("save", 5)]


def test_a_checkpoint_at_the_end_of_an_epoch_comes_after_its_evaluation():
    found = saves(every=4, step=0, steps=8, epoch_steps=4, fit_steps=4, epochs=2)
    assert found == [("epoch end", 0), ("save", 4), ("epoch end", 1), ("save", 8)]


def test_a_resumed_epoch_counts_on():
    found = saves(every=3, step=4, steps=20, epoch_steps=10, fit_steps=6)
    assert found == [("save", 6), ("save", 9), ("epoch end", 0)]


@pytest.mark.parametrize(("step", "restored"), [(0, False), (4, True), (9, False)])
def test_metrics_are_restored_when_a_broken_epoch_goes_on(step, restored):
    events = []
    saves = Saves(events)
    checkpointer = callbacks.Checkpointer(saves, every=9, step=step, steps=18, epoch_steps=9)
    fit(steps=1, epochs=1, callbacks=[checkpointer])
    assert ("restore metrics" in events) is restored


def test_what_diverges_is_stopped_before_others_see_the_epoch_s_end():
    seen = []

    def check(step):
        raise finite.NotFinite("A weight is inf", step=step)

    watch = callbacks.Divergence(check, step=4, steps=9)
    with pytest.raises(finite.NotFinite, match="A weight is inf after step 6"):
        fit(steps=2, epochs=1, callbacks=[watch, Ends(seen)])
    assert seen == []
    with pytest.raises(finite.NotFinite, match="The loss is nan after step 5"):
        watch = callbacks.Divergence(check, step=4, steps=9)
        watch.on_train_batch_end(0, {"loss": float("nan")})


def test_recorder_writes_a_line_and_scalars_per_epoch(tmp_path):
    log = workdir.MetricsLog(str(tmp_path / "metrics.jsonl"))
    recorder = callbacks.Recorder(log, str(tmp_path / "tensorboard"), step=10, steps=16)
    fit(steps=3, epochs=2, callbacks=[recorder])
    first, last = log.records()
    assert (first["step"], last["step"]) == (13, 16)
    assert first["learning_rate"] == 0.25 and set(first) == {"step", "learning_rate", "loss"}
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(path)))
    scalars = {
        (event.step, value.tag): tf.make_ndarray(value.tensor)
        for event in events
        for value in event.summary.value
    }
    assert scalars[16, "loss"] == pytest.approx(last["loss"])


def test_lines_are_json(tmp_path):
    log = workdir.MetricsLog(str(tmp_path / "metrics.jsonl"))
    fit(steps=1, epochs=1, callbacks=[callbacks.Recorder(log, str(tmp_path), step=0, steps=1)])
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


def progress(stream, *, step=0, steps=4, fit_steps=2, epochs=2):
    shown = callbacks.Progress(step=step, steps=steps, stream=stream)
    fit(steps=fit_steps, epochs=epochs, callbacks=[shown])
    return stream.getvalue()


def test_one_line_per_epoch_when_not_a_terminal():
    lines = progress(io.StringIO()).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["step 2/4", "step 4/4"]
    assert all("loss" in line and line.endswith("ms/step") for line in lines)


def test_a_bar_on_a_terminal():
    shown = progress(Terminal())
    assert "|" in shown and "left" in shown and "\nstep 4/4  loss" in shown.replace("\r", "\n")


def test_a_resumed_epoch_counts_steps_from_the_checkpoint():
    lines = progress(io.StringIO(), step=3, steps=100, fit_steps=7, epochs=1).splitlines()
    assert lines[0].startswith("step  10/100  ")


def test_only_metrics_worth_a_look_are_shown():
    stream = io.StringIO()
    shown = callbacks.Progress(step=0, steps=1, stream=stream)
    shown.on_epoch_begin(0)
    shown.on_train_batch_end(0, {})
    logs = {"loss": 1.0, "weight_p": 2.0, "val_recall_at_1": 0.5, "s_p": 0.25}
    shown.on_epoch_end(0, logs)
    assert "loss 1.000  s_p 0.250  recall@1 0.500  " in stream.getvalue()
    assert "weight_p" not in stream.getvalue()
