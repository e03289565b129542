import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import circle_tf
from circle_tf.evaluation import reidentification, reranking, retrieval
from configs import digits
from trainers import datasets
from trainers.cli import commands
from trainers.datasets import Dataset, Split
from trainers.evaluation import metrics


@functools.cache
def model():
    """Embeds by the two pixel values of a 1 x 2 image."""
    pixels = keras.Input((1, 2, 1))
    unit = keras.layers.UnitNormalization()(keras.layers.Flatten()(pixels))
    return keras.Model(pixels, unit)


def split(images, labels, **others):
    images = np.array(images, np.uint8).reshape(-1, 1, 2, 1)
    return Split(images, np.array(labels), ("a", "b", "c"), **others)


def dataset(*, queries=None, gallery=None):
    test = split([(9, 0), (8, 1), (0, 9), (7, 2)], [0, 0, 1, 1])
    return Dataset("made up", test, test, queries, gallery, (1, 2, 1), "")


def test_embed_gives_rows_in_order():
    found = metrics.embed(model(), dataset().test, [2, 0])
    np.testing.assert_allclose(found, [(0, 1), (1, 0)])


def test_a_model_that_has_diverged_is_told_of():
    pixels = keras.Input((1, 2, 1))
    embeddings = keras.layers.Dense(2, name="d")(keras.layers.Flatten()(pixels))
    net = keras.Model(pixels, embeddings)
    net.get_layer("d").kernel.assign(np.full([2, 2], np.nan))
    with pytest.raises(commands.ConfigError, match="NaN or inf: .* has diverged"):
        metrics.embed(net, dataset().test)


def test_embed_chunks_change_nothing(monkeypatch):
    test = datasets.load(digits.get_config().dataset).test
    pixels = keras.Input((8, 8, 1))
    net = keras.Model(pixels, keras.layers.Flatten()(pixels))
    whole = metrics.embed(net, test)
    monkeypatch.setattr(metrics, "_CHUNK", 100)
    monkeypatch.setattr(metrics, "_BATCH", 7)
    np.testing.assert_array_equal(metrics.embed(net, test), whole)
    np.testing.assert_array_equal(whole, test.images().reshape(len(test), -1))


def test_embed_decodes(tmp_path):
    path = str(tmp_path / "a.png")
    tf.io.write_file(path, tf.io.encode_png(np.array([[[3], [4]]], np.uint8)))
    files = Split([path], np.array([0]), ("a",), decode=lambda data: tf.io.decode_png(data))
    np.testing.assert_allclose(metrics.embed(model(), files), [(0.6, 0.8)])


def test_embed_nothing():
    assert metrics.embed(model(), dataset().test, []).shape == (0, 2)


def test_leave_one_out():
    results = metrics.evaluate(model(), dataset())
    assert list(results) == ["leave_one_out", "decision"]
    assert results["leave_one_out"]["recall_at_1"] == 0.75
    assert results["leave_one_out"]["queries"] == 4


def test_thresholds_are_those_of_the_library():
    data = dataset()
    found = metrics.evaluate(model(), data)["decision"]
    with pytest.warns(UserWarning, match="too small"):
        expected = circle_tf.calibrate(metrics.embed(model(), data.test), data.test.labels)
    assert circle_tf.Calibration.from_dict(found) == expected
    found = metrics.evaluate(model(), data, false_accept_rates=(0.3,))["decision"]
    assert [one["false_accept_rate"] for one in found["search"]] == [0.3]


def test_one_shot_looks_queries_up_in_the_gallery():
    queries, gallery = split([(9, 1), (1, 9)], [0, 0]), split([(9, 0), (0, 9)], [0, 1])
    results = metrics.evaluate(model(), dataset(queries=queries, gallery=gallery))
    assert list(results) == ["one_shot", "leave_one_out", "decision"]
    assert results["one_shot"]["recall_at_1"] == 0.5 and results["one_shot"]["queries"] == 2


def test_re_identification_by_cameras_and_ranked_anew():
    random = np.random.default_rng(0)
    labels, cameras = np.arange(40) % 3, np.arange(40) % 4
    images = np.clip(random.normal([[90, 10], [50, 50], [10, 90]], 22, (40, 3, 2)), 1, 255)
    images = images[np.arange(40), labels]
    parts = [split(images[p], labels[p], cameras=cameras[p]) for p in (slice(12), slice(12, 40))]
    data = dataset(queries=parts[0], gallery=parts[1])
    found = metrics.evaluate(model(), data, rerank=True)
    assert list(found) == ["re_identification", "re_ranked", "leave_one_out", "decision"]
    assert found["re_identification"] == metrics.evaluate(model(), data)["re_identification"]
    rows = [metrics.embed(model(), part) for part in parts]
    cameras = {"query_cameras": parts[0].cameras, "gallery_cameras": parts[1].cameras}
    expected = reidentification.reidentification_report(
        rows[0],
        parts[0].labels,
        rows[1],
        parts[1].labels,
        distances=reranking.k_reciprocal_distances(*rows, k1=20, k2=6),
        **cameras,
    )
    assert found["re_ranked"] == expected != found["re_identification"]


@pytest.mark.parametrize("cameras", [None, np.array([1, 1])])
def test_queries_without_a_match_leave_the_other_numbers(cameras):
    labels = [0, 1] if cameras is not None else [2, 2]
    queries = split([(9, 1), (1, 9)], labels, cameras=cameras)
    gallery = split([(9, 0), (0, 9)], [0, 1], cameras=cameras)
    found = metrics.evaluate(
        model(), dataset(queries=queries, gallery=gallery), rerank=cameras is not None
    )
    assert found.pop("leave_one_out")["recall_at_1"] == 0.75
    assert found.pop("decision")["counts"]["identities"] == 2
    assert list(found) == (["one_shot"] if cameras is None else ["re_identification", "re_ranked"])
    for reason in found.values():
        assert "No query has a match" in reason["not_measured"]


def test_what_cannot_be_evaluated_while_training_is_told_of():
    single = split([(9, 0), (0, 9)], [0, 1])
    data = Dataset("made up", single, single, None, None, (1, 2, 1), "")
    with pytest.warns(UserWarning, match="evaluated while training: No query has a match"):
        callback = metrics.during_training(digits.get_config(), model=model(), dataset=data)
    callback.on_epoch_end(0, {})
    found = metrics.evaluate(model(), data)
    assert "No query" in found["leave_one_out"]["not_measured"]
    assert "one with two examples" in found["decision"]["not_measured"]


def test_ranking_anew_wants_cameras():
    with pytest.raises(commands.ConfigError, match="made up has no cameras"):
        metrics.evaluate(model(), dataset(), rerank=True)


def many(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return Split(np.zeros([len(labels), 1, 2, 1], np.uint8), labels, tuple("abcdefgh"))


@pytest.mark.parametrize("examples", [25, 40, 10_000])
def test_whole_classes_are_chosen(examples):
    test = many([10, 3, 7, 5, 8, 2, 9, 6])
    rows = metrics.choose_classes(test, examples=examples)
    chosen, found = np.unique(test.labels[rows], return_counts=True)
    np.testing.assert_array_equal(found, np.bincount(test.labels)[chosen])
    assert len(chosen) >= 2 and len(rows) <= examples
    if examples == 10_000:
        assert len(rows) == len(test)


@pytest.mark.parametrize(("examples", "found"), [(50, [25, 25]), (5, [2, 2]), (1, [2, 2])])
def test_two_classes_that_are_too_many_are_cut(examples, found):
    test = many([1000, 1000, 1000])
    rows = metrics.choose_classes(test, examples=examples)
    assert np.unique(test.labels[rows], return_counts=True)[1].tolist() == found
    assert len(set(rows.tolist())) == len(rows)


def test_choice_depends_on_the_seed_alone():
    test = many([10, 3, 7, 5, 8, 2, 9, 6])
    first = metrics.choose_classes(test, examples=20, seed=1)
    np.testing.assert_array_equal(metrics.choose_classes(test, examples=20, seed=1), first)
    others = [metrics.choose_classes(test, examples=20, seed=seed) for seed in range(5)]
    assert len({other.tobytes() for other in others}) > 1


def test_during_training_takes_the_embedding_model():
    """The model that trains ends in class scores; what it says must not count."""
    scores = keras.Model(model().input, keras.layers.Dense(3)(model().output))
    callback = metrics.during_training(digits.get_config(), model=model(), dataset=dataset())
    callback.set_model(scores)
    assert callback.evaluate()["val_recall_at_1"] == 0.75


def test_during_training_takes_queries_and_gallery_where_there_are():
    queries, gallery = split([(9, 1), (1, 9)], [0, 0]), split([(9, 0), (0, 9)], [0, 1])
    data = dataset(queries=queries, gallery=gallery)
    callback = metrics.during_training(digits.get_config(), model=model(), dataset=data)
    assert callback.evaluate()["val_recall_at_1"] == 0.5


def test_evaluation_equals_the_library():
    test = datasets.load(digits.get_config().dataset).test
    pixels = keras.Input((8, 8, 1))
    net = keras.Model(pixels, keras.layers.Flatten()(pixels))
    data = Dataset("digits", test, test, None, None, (8, 8, 1), "")
    expected = retrieval.retrieval_report(test.images().reshape(len(test), -1), test.labels)
    assert metrics.evaluate(net, data)["leave_one_out"] == expected
