"""Packing goes on where it was stopped, and never takes a part for the whole."""

import fcntl
import os
import threading

import numpy as np
import pytest
import tensorflow as tf

from tests import layouts as fixtures
from tests.pictures import picture
from trainers import data
from trainers.datasets import base, packing, tfrecord
from trainers.datasets.faces import recordio


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path):
    for label in range(4):
        for number in range(3):
            path = tmp_path / "data" / f"class{label}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(size=(20, 20), seed=3 * label + number))
    return tmp_path / "data"


def shards_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".tfrecord")


def records_of(folder):
    paths = [str(folder / name) for name in shards_of(folder)]
    return [record.numpy() for record in tf.data.TFRecordDataset(paths)]


def features_of(folder):
    return [tf.train.Example.FromString(r).features.feature for r in records_of(folder)]


def convert(root, output, **options):
    return data.convert(str(root), output=str(output), **options)


def small_shards(root):
    return sum(path.stat().st_size for path in root.glob("*/*.png")) // 4


def interrupt(monkeypatch, *, at):
    """Stops at the image of that row; returns the rows that were read."""
    read, plain = [], packing.of_collection

    def of_collection(found, **options):
        images = plain(found, **options)

        def record(row):
            read.append(row)
            if row == at:
                raise KeyboardInterrupt
            return images.record(row)

        return packing.Images(images.sizes, images.marks, record)

    monkeypatch.setattr(packing, "of_collection", of_collection)
    return read


@pytest.mark.parametrize("workers", [1, 3])
def test_an_interrupted_conversion_goes_on_and_gives_the_same(root, tmp_path, monkeypatch, workers):
    options = {"shard_bytes": small_shards(root), "workers": workers}
    convert(root, tmp_path / "whole", **options)
    output = tmp_path / "shards"
    with monkeypatch.context() as patch:
        interrupt(patch, at=7)
        with pytest.raises(KeyboardInterrupt):
            convert(root, output, **options)
    assert not output.exists()
    partial = tmp_path / "shards.partial"
    done = [name for name in shards_of(partial) if (partial / f"{name}.index.npz").exists()]
    with monkeypatch.context() as patch:
        read = interrupt(patch, at=None)
        convert(root, output, **options)
    assert len(read) < 12 or not done
    assert not partial.exists() and len(shards_of(output)) > 2
    assert records_of(output) == records_of(tmp_path / "whole")
    assert sorted(os.listdir(output)) == sorted(os.listdir(tmp_path / "whole"))


def test_a_shard_without_an_index_is_written_again(root, tmp_path):
    output = tmp_path / "shards"
    convert(root, output)
    whole = records_of(output)
    (name,) = shards_of(output)
    output.rename(tmp_path / "shards.partial")
    (tmp_path / "shards.partial" / name).write_bytes(b"cut")
    os.remove(tmp_path / "shards.partial" / f"{name}.index.npz")
    (tmp_path / "shards.partial" / f".1.partial.{name}").write_bytes(b"cut")
    convert(root, output)
    assert records_of(output) == whole
    assert sorted(os.listdir(output)) == [name, f"{name}.index.npz"]


def test_the_beginning_of_another_conversion_is_not_taken_up(root, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, at=0)
        with pytest.raises(KeyboardInterrupt):
            convert(root, tmp_path / "shards")
    with pytest.raises(base.DataError, match="the beginning of another conversion"):
        convert(root, tmp_path / "shards", shard_bytes=small_shards(root))
    (root / "class0" / "0.png").write_bytes(picture(size=(9, 9), seed=99))
    with pytest.raises(base.DataError, match="the beginning of another conversion"):
        convert(root, tmp_path / "shards")


def test_two_at_once_are_refused(root, tmp_path):
    (tmp_path / "shards.partial").mkdir()
    lock = os.open(tmp_path / "shards.partial", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(base.DataError, match="Another process is writing"):
        convert(root, tmp_path / "shards")
    os.close(lock)
    convert(root, tmp_path / "shards")


def test_shards_are_written_side_by_side(tmp_path):
    together = threading.Barrier(3, timeout=20)

    def record(row):
        together.wait()  # Each of three shards is at its first image at once.
        return packing.Record(b"x", row, str(row), str(row))

    images = packing.Images(np.ones(3, int), ["a", "b", "c"], record)
    assert packing.pack(images, str(tmp_path), shard_bytes=1, workers=3) == 3


def test_a_published_data_set_has_a_folder_for_each_part(tmp_path):
    fixtures.market1501(tmp_path / "data")
    told = convert(tmp_path / "data", tmp_path / "out", dataset="market1501")
    assert "train: Wrote 4 images of 2 classes in 1 shards." in told
    assert sorted(os.listdir(tmp_path / "out")) == ["gallery", "query", "train"]
    queries, gallery = (features_of(tmp_path / "out" / part) for part in ("query", "gallery"))
    cameras = [feature["camera"].int64_list.value[0] for feature in queries]
    assert cameras == [1, 2]
    labels = {}
    for feature in [*queries, *gallery]:
        name = feature["class"].bytes_list.value[0]
        labels.setdefault(name, set()).add(feature["label"].int64_list.value[0])
    assert all(len(found) == 1 for found in labels.values())
    assert len(set.union(*labels.values())) == len(labels)
    assert len(tfrecord.collect(str(tmp_path / "out" / "train")).labels) == 4


def test_recordio_keeps_every_byte_and_label(tmp_path):
    contents = fixtures.recordio(tmp_path / "faces")
    told = convert(tmp_path / "faces", tmp_path / "out", dataset="recordio", shard_bytes=1)
    assert "Wrote 3 images in 3 shards, as they are: none was decoded." in told
    features = features_of(tmp_path / "out")
    assert [f["image"].bytes_list.value[0] for f in features] == contents
    assert [f["label"].int64_list.value[0] for f in features] == [5, 5, 7]
    assert [f["class"].bytes_list.value[0] for f in features] == [b"5", b"5", b"7"]


def test_recordio_sizes_are_the_places_between_records(tmp_path):
    fixtures.recordio(tmp_path)
    with recordio.RecordIO(tmp_path) as records:
        sizes = records.sizes()
        total = (tmp_path / "train.rec").stat().st_size
    assert (sizes > 0).all() and sizes.sum() < total
