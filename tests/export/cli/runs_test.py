"""A finished run is read; anything else is refused in words."""

import json

import numpy as np
import pytest

from export.cli import console, runs
from tests import saved_models


def test_reads_a_finished_run(tmp_path):
    model = saved_models.embedding_model()
    workdir = saved_models.finished_run(tmp_path / "run", model=model)
    run = runs.read(str(workdir))
    assert run.image_shape == saved_models.SHAPE
    assert run.record["step"] == 7 and run.config == {"steps": 7}
    loaded = runs.load_model(str(workdir))
    np.testing.assert_array_equal(loaded(saved_models.IMAGES), model(saved_models.IMAGES))


def test_a_run_may_keep_no_config_and_no_shape(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    run = runs.read(str(tmp_path))
    assert run.config == {} and run.image_shape is None


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has not finished.*python -m trainers.train"), ("{", "not JSON"), ("[]", "object")],
)
def test_unfinished_and_broken_runs(tmp_path, content, message):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(console.ExportError, match=message):
        runs.read(str(tmp_path))


def test_the_best_model_may_be_taken_instead_of_the_last(tmp_path):
    last, best = saved_models.embedding_model(seed=0), saved_models.embedding_model(seed=1)
    workdir = saved_models.finished_run(tmp_path / "run", model=last)
    with pytest.raises(console.ExportError, match="did not keep its best model"):
        runs.read(str(workdir), best=True)
    best.save(workdir / "best.keras")
    kept = {"step": 3, "value": 0.9, "metrics": {"recall_at_1": 0.9}}
    (workdir / "best.json").write_text(json.dumps(kept))
    np.savez(workdir / "class_weights.npz", class_weights=np.ones([2, 6]))
    run = runs.read(str(workdir), best=True)
    assert (run.record["step"], run.record["metrics"]) == (3, {"recall_at_1": 0.9})
    assert run.class_weights() is None  # Those that are kept are of the last step.
    assert runs.read(str(workdir)).class_weights().shape == (2, 6)
    loaded = runs.load_model(str(workdir), best=True)
    np.testing.assert_array_equal(loaded(saved_models.IMAGES), best(saved_models.IMAGES))


@pytest.mark.parametrize("best", [False, True])
def test_thresholds_are_those_of_the_same_model(tmp_path, best):
    workdir = saved_models.finished_run(tmp_path / "run", model=saved_models.embedding_model())
    (workdir / "best.keras").write_bytes(b"")
    (workdir / "best.json").write_text(json.dumps({"step": 3, "metrics": {}}))
    run = runs.read(str(workdir), best=best)
    assert run.decision() is None
    own = {"file": "best.keras", "step": 3} if best else {"file": "model.keras", "step": 7}
    for model in (own, own | {"step": 5}, own | {"file": "another.keras"}, None):
        found = {"decision": {"verification": []}, "model": model}
        (workdir / "evaluation.json").write_text(json.dumps(found))
        assert run.decision() == ({"verification": []} if model == own else None)


def test_no_workdir(tmp_path):
    with pytest.raises(console.ExportError, match="There is no workdir"):
        runs.read(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("content", "message"), [(None, "There is no model.keras"), (b"no zip", "cannot be loaded")]
)
def test_missing_and_broken_models(tmp_path, content, message):
    if content is not None:
        (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(console.ExportError, match=message):
        runs.load_model(str(tmp_path))


def test_labels_of_no_class_are_refused(tmp_path):
    images, labels = np.zeros([2, 4, 4, 1], np.uint8), np.array([0, 1])
    np.savez(tmp_path / "held_out.npz", images=images, labels=labels, class_names=np.array(["a"]))
    with pytest.raises(console.ExportError, match="held_out.npz is broken .a label counts none of"):
        runs.HeldOut.load(tmp_path / "held_out.npz")
