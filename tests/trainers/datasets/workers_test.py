"""Several processes look and pack, and give what one gives."""

import numpy as np
import pytest

from tests.pictures import picture
from trainers import data
from trainers.datasets import collection, folder, packing


@pytest.fixture
def root(tmp_path):
    for label in range(4):
        below = tmp_path / "data" / f"class{label}"
        below.mkdir(parents=True)
        for number in range(3):
            (below / f"{number}.png").write_bytes(picture(seed=3 * label + number, size=(20, 20)))
    (tmp_path / "data" / "class1" / "bad.png").write_text("no image")
    return tmp_path / "data"


def _files(output):
    return {path.name: path.read_bytes() for path in output.iterdir() if path.suffix == ".tfrecord"}


# Slow, as the next one: two more processes import TensorFlow.
@pytest.mark.slow
def test_several_processes_write_the_same_files_and_go_on(root, tmp_path, monkeypatch):
    size = sum(path.stat().st_size for path in root.glob("*/*.png")) // 3
    told = data.convert(str(root), output=str(tmp_path / "one"), shard_bytes=size)
    # A run before wrote one shard and was stopped; its looks are forgotten.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = collection.drop_unreadable(folder.collect(str(root)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(packing, "write_shard", _stop_after_first(packing.write_shard))
        data.convert(str(root), output=str(tmp_path / "two"), shard_bytes=size, workers=1)
    whole = _files(tmp_path / "two.partial")
    before = {name: (tmp_path / "two.partial" / name).stat().st_mtime_ns for name in whole}
    again = data.convert(str(root), output=str(tmp_path / "two"), shard_bytes=size, processes=2)
    assert again.splitlines()[:-1] == told.splitlines()[:-1] and len(found.labels) == 12
    assert _files(tmp_path / "two") == _files(tmp_path / "one")
    assert len(whole) == 1 < len(_files(tmp_path / "two"))
    for name, time in before.items():
        assert (tmp_path / "two" / name).stat().st_mtime_ns == time


def _stop_after_first(write):
    def stopping(images, path, shard, count, **options):
        if shard:
            raise KeyboardInterrupt
        write(images, path, shard, count, **options)

    return stopping


@pytest.mark.slow
def test_several_processes_tell_the_same(root, cache, monkeypatch, tmp_path):
    told = data.check(str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data.check(str(root), processes=2) == told and "1 unreadable" in told


def test_what_was_looked_at_before_a_stop_is_not_looked_at_again(root, monkeypatch):
    monkeypatch.setattr(collection, "_PIECE", 5)
    found, looked = folder.collect(str(root)), []

    def look(images, *, rows, tell):
        if looked and len(looked) < 2:
            looked.append(None)
            raise KeyboardInterrupt
        looked.append(rows.tolist())
        return collection.inspect(images, rows=rows, tell=tell)

    with pytest.raises(KeyboardInterrupt):
        collection.looks(found, look=look)
    seen = collection.looks(found, look=look)
    assert looked[0] == [0, 1, 2, 3, 4] and sorted(sum(looked[2:], [])) == list(range(5, 13))
    sizes = [size for size in seen if not isinstance(size, str)]
    np.testing.assert_array_equal(sizes, [[20, 20]] * 12)
