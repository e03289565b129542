import keras
import numpy as np
import pytest

import circle_tf
from circle_tf import run_files
from trainers.outputs import best, workdir


@pytest.fixture
def files(tmp_path):
    files = workdir.Workdir(str(tmp_path / "run"))
    workdir.write_json(files.data, {"parts": {"train": {}, "test": {"classes": ["a"]}}})
    return files


def _model(seed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((3,))
    return keras.Model(inputs, circle_tf.UnitEmbedding(2)(inputs))


def _kept(files, *, step=0, metric="val_recall_at_1", examples=10):
    return best.BestModel(files, metric=metric, examples=examples, step=step)


def _offer(kept, *, step, value):
    model = _model(step)
    kept.offer(model, step=step, metrics={"val_recall_at_1": value, "val_r_precision": -value})
    return model


def test_the_best_of_a_run_is_kept_with_step_and_numbers(files):
    kept = _kept(files)
    models = [_offer(kept, step=n, value=value) for n, value in enumerate([0.2, 0.6, 0.6, 0.5], 1)]
    found = run_files.read_best(files)
    assert (found["step"], found["value"]) == (2, 0.6)
    assert found["metrics"] == {"step": 2, "val_recall_at_1": 0.6, "val_r_precision": -0.6}
    loaded = run_files.load_model(files.best)
    np.testing.assert_array_equal(loaded.get_weights()[0], models[1].get_weights()[0])


def test_it_outlives_a_restart(files):
    _offer(_kept(files), step=1, value=0.6)
    _offer(_kept(files, step=1), step=2, value=0.5)
    assert run_files.read_best(files)["step"] == 1
    _offer(_kept(files, step=1), step=2, value=0.7)
    assert run_files.read_best(files)["step"] == 2


@pytest.mark.parametrize(
    "judge", [{"examples": 5}, {"metric": "val_r_precision"}, {"step": 0}, "other data"], ids=str
)
def test_numbers_that_cannot_be_compared_are_not(judge, files):
    _offer(_kept(files), step=1, value=0.6)
    if judge == "other data":
        workdir.write_json(files.data, {"parts": {"train": {}, "test": {"classes": ["b"]}}})
        judge = {}
    _offer(_kept(files, **{"step": 1, **judge}), step=2, value=0.5)
    assert run_files.read_best(files)["step"] == 2


def test_other_data_to_train_on_changes_nothing(files):
    _offer(_kept(files), step=1, value=0.6)
    workdir.write_json(files.data, {"parts": {"train": {"x": 1}, "test": {"classes": ["a"]}}})
    _offer(_kept(files, step=1), step=2, value=0.5)
    assert run_files.read_best(files)["step"] == 1


def test_nan_is_never_best(files):
    kept = _kept(files)
    _offer(kept, step=1, value=float("nan"))
    with pytest.raises(ValueError, match="did not keep its best model"):
        run_files.read_best(files)
    _offer(kept, step=2, value=0.0)
    _offer(kept, step=3, value=float("nan"))
    assert run_files.read_best(files)["step"] == 2


def test_a_kill_while_it_is_replaced_leaves_no_wrong_record(files, monkeypatch):
    kept = _kept(files)
    before = _offer(kept, step=1, value=0.1).get_weights()[0]

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(keras.Model, "save", die)
        _offer(kept, step=2, value=0.2)
    assert run_files.read_best(files)["step"] == 1
    np.testing.assert_array_equal(run_files.load_model(files.best).get_weights()[0], before)
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(workdir, "write_json", die)
        _offer(kept, step=2, value=0.2)
    with pytest.raises(ValueError, match="has no best.json"):
        run_files.read_best(files)
