"""Variants are run, compared, and published with what was found."""

import json
import os

import numpy as np
import pytest

from circle_tf.serving import gallery, servable, signatures
from export.cli import console, runs
from export.publishing import manifest, publisher, variants
from export.saved_model import contents, warmup
from tests import saved_models
from tests.export.publishing.thresholds_test import MEASURED

CLASS_NAMES = ["v", "w", "x", "y, z", "ä"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = saved_models.finished_run(tmp_path_factory.mktemp("runs") / "run")
    rng = np.random.default_rng(0)
    np.savez(
        workdir / "held_out.npz",
        images=rng.integers(0, 256, (24, *saved_models.SHAPE)).astype(np.uint8),
        labels=np.arange(24) % 6,
        class_names=np.array(list("abcdef")),
    )
    weights = {"class_weights": rng.normal(size=(5, 6)), "class_names": np.array(CLASS_NAMES)}
    np.savez(workdir / "class_weights.npz", **weights)
    evaluated = {"decision": MEASURED, "model": {"file": "model.keras", "step": 7}}
    (workdir / "evaluation.json").write_text(json.dumps(evaluated))
    return runs.read(str(workdir))


def _publish(run, base_path, **options):
    return publisher.publish(
        run,
        base_path=str(base_path),
        options=publisher.Options(**options),
        tell=lambda line: None,
    )


def test_examples_of_which_each_class_has_one_give_no_recall(tmp_path):
    workdir = saved_models.finished_run(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (4, *saved_models.SHAPE)).astype(np.uint8)
    content = {"labels": np.arange(4), "class_names": np.array(list("abcd"))}
    np.savez(workdir / "held_out.npz", images=images, **content)
    single = runs.read(str(workdir))
    model = runs.load_model(single.workdir)
    servable.save_servable(model, str(tmp_path / "1"))
    found = variants.report(str(tmp_path / "1"), run=single, model=model, made={})
    assert [facts["recall_at_1"] for facts in found.values()] == [None, None]
    assert found["saved_model"]["lowest_cosine"] > 0.9999


# Converts to four formats and verifies in a process of its own: 20 to 40 seconds.
@pytest.mark.slow
def test_everything_at_once(tmp_path, run):
    published = _publish(
        run,
        tmp_path / "tiny",
        gallery="held_out",
        k=4,
        batch_sizes=(1, 4),
        lite=variants.LITE,
        onnx=("serving_default",),
    )
    written = json.loads((tmp_path / "tiny" / "1" / manifest.PATH).read_text())
    assert set(written["signatures"]) == set(signatures.NAMES)
    assert written["classes"] == CLASS_NAMES
    again = contents.Contents.read(published.path)
    assert (again.class_names.tolist(), again.k) == (CLASS_NAMES, 4)
    assert {name for name, seen in written["verified"].items() if name in signatures.NAMES} == set(
        signatures.NAMES
    ) - {"serving_default"}
    found = written["variants"]
    assert set(found) == {"reference", "saved_model", "onnx"} | {f"lite_{k}" for k in variants.LITE}
    assert found["lite_int8"]["bytes"] < found["lite_float32"]["bytes"]
    assert all(0 <= facts["recall_at_1"] <= 1 for facts in found.values())
    assert found["onnx"]["lowest_cosine"] > 0.9999 < found["lite_float32"]["lowest_cosine"]
    own = gallery.embedder_fingerprint(runs.load_model(run.workdir))
    assert written["gallery"]["source_fingerprint"] == written["model_fingerprint"] == own
    assert "saved_model.pb" in written["files"] and warmup.PATH in written["files"]
    assert len(list(warmup.read(published.path))) == 2 * len(signatures.NAMES)


# Starts a process that imports TensorFlow.
@pytest.mark.slow
@pytest.mark.parametrize("options", [{"weights": "bfloat16"}, {"xla": True}])
def test_half_weights_and_xla_are_verified(tmp_path, run, options):
    published = _publish(run, tmp_path / "tiny", signatures=("similarity",), **options)
    assert set(published.manifest["signatures"]) == {"serving_default", "similarity"}
    assert published.manifest["variants"]["saved_model"]["cosine"] > 0.999
    assert published.manifest["xla"] == options.get("xla", False)


# Starts a process that imports TensorFlow.
@pytest.mark.slow
def test_class_weights_of_several_sub_centres_are_verified(tmp_path):
    workdir = saved_models.finished_run(tmp_path / "run")
    weights = np.random.default_rng(0).normal(size=(5, 3, 6))
    np.savez(workdir / "class_weights.npz", class_weights=weights, class_names=CLASS_NAMES)
    of_classes = ("class_scores", "top_classes")
    published = _publish(runs.read(str(workdir)), tmp_path / "tiny", signatures=of_classes)
    stored = contents.Contents.read(published.path).class_weights
    unit = weights / np.linalg.norm(weights, axis=2, keepdims=True)
    np.testing.assert_allclose(stored, unit, atol=1e-6)


def test_a_gallery_of_another_model_is_refused(tmp_path, run):
    path = str(tmp_path / "gallery.npz")
    gallery.Gallery(np.eye(6), list("abcdef"), source="0123").save(path)
    with pytest.raises(console.ExportError, match="embedded by another model .fingerprint 0123"):
        _publish(run, tmp_path / "tiny", gallery=path)
    gallery.Gallery(np.eye(6), list("abcdef")).save(path)
    with pytest.raises(console.ExportError, match="another model .fingerprint unknown"):
        _publish(run, tmp_path / "tiny", gallery=path)
    assert os.listdir(tmp_path / "tiny") == [".publish.lock"]


def test_unknown_variants_and_files_are_refused(tmp_path, run):
    with pytest.raises(console.ExportError, match="--lite takes float32.*found int4"):
        variants.make(str(tmp_path), run=run, model=saved_models.embedding_model(), lite=["int4"])
    with pytest.raises(console.ExportError, match="serving_bytes: .*ONNX cannot decode"):
        _publish(run, tmp_path / "tiny", onnx=("serving_bytes",))
    with pytest.raises(console.ExportError, match="Give a gallery file, a folder"):
        _publish(run, tmp_path / "tiny", gallery="none.npz")
