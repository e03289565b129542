"""What is published is whole and verified; nothing else appears."""

import json
import os
import signal
import time

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.serving import servable
from export.cli import console, runs
from export.publishing import manifest, publisher
from export.rollout import versions
from export.verification import checks
from tests import disks, processes, saved_models


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = saved_models.finished_run(tmp_path_factory.mktemp("runs") / "run")
    return runs.read(str(workdir))


# Starts a process that imports TensorFlow: 5 to 10 seconds.
@pytest.mark.slow
def test_publishes_a_verified_version_with_its_manifest(tmp_path, run):
    base_path = tmp_path / "models" / "tiny"
    (base_path / "4").mkdir(parents=True)
    published = publisher.publish(run, base_path=str(base_path), tell=lambda line: None)
    assert published.path == str(base_path / "5")
    assert sorted(os.listdir(base_path)) == [".publish.lock", "4", "5"]
    assert os.stat(published.path).st_mode & 0o777 == os.stat(base_path / "4").st_mode & 0o777
    signature = tf.saved_model.load(published.path).signatures["serving_default"]
    expected = runs.load_model(run.workdir)(saved_models.IMAGES)
    found = signature(images=tf.constant(saved_models.IMAGES))["embeddings"]
    np.testing.assert_allclose(found, expected, atol=1e-6)

    written = json.loads((base_path / "5" / manifest.PATH).read_text())
    assert written == published.manifest
    assert written["version"] == 5 and written["training"]["step"] == 7
    assert written["training"]["config"] == {"steps": 7}
    assert written["metrics"] == {"recall_at_1": 0.5}
    assert written["limits"] == {"max_batch_size": 1024, "max_pixels": 1 << 26}
    assert written["fingerprint"] == manifest.fingerprint(published.path)
    assert written["parity"] == published.verified.parity <= 1e-5
    assert {"Conv2D", "EnsureShape", "Assert"} <= set(written["operations"])


@pytest.mark.parametrize(("limit", "sizes"), [(16, (1,)), (63, (1, 64))])
def test_a_model_must_take_the_batches_that_it_is_tried_with(tmp_path, run, limit, sizes):
    options = publisher.Options(max_batch_size=limit, batch_sizes=sizes)
    with pytest.raises(console.ExportError, match=rf"must be (17|64) or more.*found {limit}\."):
        publisher.publish(run, base_path=str(tmp_path), options=options)
    assert os.listdir(tmp_path) == []


def _publish_as(monkeypatch, run, base_path, save):
    monkeypatch.setattr(servable, "save_servable", save)
    return publisher.publish(run, base_path=str(base_path), tell=lambda line: None)


def test_a_model_that_fails_verification_is_not_published(tmp_path, run, monkeypatch):
    def sabotaged(model, path, **_):
        return saved_models.save_embedder(path, lambda images: tf.cast(model(images), tf.float64))

    with pytest.raises(checks.VerificationError, match="must not be served. signature: "):
        _publish_as(monkeypatch, run, tmp_path, sabotaged)
    assert os.listdir(tmp_path) == [".publish.lock"]


# Starts a process that imports TensorFlow.
@pytest.mark.slow
def test_a_model_without_its_guard_is_not_published(tmp_path, run, monkeypatch):
    def sabotaged(model, path, **_):
        return saved_models.save_embedder(path, model, guard_empty=False)

    with pytest.raises(checks.VerificationError, match="empty batch.*answered with"):
        _publish_as(monkeypatch, run, tmp_path, sabotaged)
    assert os.listdir(tmp_path) == [".publish.lock"]


def test_a_model_that_cannot_be_served_is_an_error_for_people(tmp_path, run, monkeypatch):
    def refuse(*_, **__):
        raise ValueError("not of length 1")

    with pytest.raises(console.ExportError, match="not of length 1"):
        _publish_as(monkeypatch, run, tmp_path, refuse)


def test_a_full_disk_leaves_no_version(tmp_path, run, monkeypatch):
    def fail(model, path, **_):
        os.makedirs(path)
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        _publish_as(monkeypatch, run, tmp_path, fail)
    assert os.listdir(tmp_path) == [".publish.lock"]


def test_a_disk_that_fills_up_is_told_in_one_sentence(tmp_path, run):
    with disks.full_beyond(1000), pytest.raises(OSError) as error:
        publisher.publish(run, base_path=str(tmp_path), tell=lambda line: None)
    assert str(error.value).startswith(f"{tmp_path} cannot be written to: File too large. Make")
    assert os.listdir(tmp_path) == [".publish.lock"]


def test_a_taken_version_is_refused_before_anything_is_made(tmp_path, run):
    (tmp_path / "3").mkdir()
    with pytest.raises(console.ExportError, match="Version 3 exists"):
        publisher.publish(run, base_path=str(tmp_path), version=3)
    assert os.listdir(tmp_path) == ["3"]


def _wait_for_stage(base_path, process):
    """Until the publisher is in the middle of its work."""
    for _ in range(1200):
        if any(name.startswith(".tmp-") for name in os.listdir(base_path)):
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("the publisher did not begin to write")


# Starts a process that imports TensorFlow, and kills it.
@pytest.mark.slow
def test_killed_midway_no_version_appears_and_the_next_publish_cleans_up(tmp_path, run):
    base_path = str(tmp_path)
    options = [f"--workdir={run.workdir}", f"--base_path={base_path}"]
    with processes.started("-m", "export.publish", *options) as process:
        _wait_for_stage(base_path, process)
        process.send_signal(signal.SIGKILL)
    left = os.listdir(base_path)
    assert any(name.startswith(".tmp-") for name in left)
    assert versions.existing(base_path) == []
    with versions.exclusive(base_path, tell=pytest.fail), versions.staging(base_path):
        pass  # The lock died with its holder, and staging cleans up.
    assert os.listdir(base_path) == [".publish.lock"]
