import threading

import numpy as np
import pytest
import tensorflow as tf

from circle_tf.data import records
from circle_tf.data.records import RecordError, RecordFiles, write_index


def _example(label, data=b"image", **features):
    feature = {
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data])),
        **features,
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _write(path, examples, options=None):
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for example in examples:
            writer.write(example)
    return path


@pytest.fixture
def examples():
    rng = np.random.default_rng(0)
    return [_example(label, rng.bytes(10 + 37 * label)) for label in range(7)]


@pytest.fixture
def paths(tmp_path, examples):
    return [
        _write(tmp_path / "a.tfrecord", examples[:4]),
        _write(tmp_path / "empty.tfrecord", []),
        _write(tmp_path / "b.tfrecord", examples[4:]),
    ]


def test_reads_any_record_of_several_files(paths, examples):
    files = RecordFiles(paths)
    assert len(files) == 7
    assert files.labels.dtype == np.int64
    np.testing.assert_array_equal(files.labels, range(7))
    for rows in ([6, 0, 3, 3, 5], [], list(range(7))):
        assert files.fetch(rows) == [examples[row] for row in rows]


def test_reads_one_path_given_as_a_string(paths, examples):
    assert RecordFiles(str(paths[0])).fetch([2]) == [examples[2]]


def test_take_is_a_part_in_the_order_asked_for(paths, examples):
    part = RecordFiles(paths).take([5, 1])
    assert len(part) == 2
    np.testing.assert_array_equal(part.labels, [5, 1])
    assert part.fetch([0, 1]) == [examples[5], examples[1]]


def test_large_labels_are_exact(tmp_path):
    path = _write(tmp_path / "a.tfrecord", [_example(2**40 + 1), _example(-3)])
    np.testing.assert_array_equal(RecordFiles(path).labels, [2**40 + 1, -3])


def test_many_records_are_scanned_in_batches(tmp_path):
    examples = [_example(label, b"x" * label) for label in range(150)]
    files = RecordFiles(_write(tmp_path / "a.tfrecord", examples))
    np.testing.assert_array_equal(files.labels, range(150))
    assert files.fetch([149, 64, 0]) == [examples[149], examples[64], examples[0]]


def test_a_fault_deep_in_a_file_has_its_offset(tmp_path):
    examples = [_example(label) for label in range(100)]
    path = _write(tmp_path / "a.tfrecord", [*examples, b"none"])
    offset = sum(16 + len(example) for example in examples)
    with pytest.raises(RecordError, match=rf"record at byte {offset}: .*no tf.train.Example"):
        RecordFiles(path)


def test_reads_from_several_threads(paths, examples):
    files, found = RecordFiles(paths), {}

    def read(start):
        found[start] = [files.fetch([(start + i) % 7])[0] for i in range(50)]

    threads = [threading.Thread(target=read, args=[start]) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for start in range(4):
        assert found[start] == [examples[(start + i) % 7] for i in range(50)]


@pytest.mark.parametrize("row", [-1, 7])
def test_number_out_of_range(paths, row):
    with pytest.raises(IndexError, match=f"0 to 6, found .*{row}"):
        RecordFiles(paths).fetch([row])


def test_no_files():
    with pytest.raises(ValueError, match="at least one TFRecord file"):
        RecordFiles([])


def test_no_records(paths):
    with pytest.raises(ValueError, match=r"found none in 1 files.*empty\.tfrecord"):
        RecordFiles([paths[1]])


def _second_record(path):
    length = int.from_bytes(path.read_bytes()[:8], "little")
    return 8 + 4 + length + 4


def _flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("within", [0, 3, 7, 9, 14])
def test_damage_is_found_by_the_scan_with_file_and_offset(paths, within):
    start = _second_record(paths[0])
    _flip(paths[0], start + within)
    with pytest.raises(RecordError, match=rf"a\.tfrecord, record at byte {start}: .*damaged"):
        RecordFiles(paths)


def test_another_length_than_scanned_is_found_when_read(paths):
    files = RecordFiles(paths)
    start = _second_record(paths[0])
    _flip(paths[0], start)
    assert len(files.fetch([0, 2])) == 2
    with pytest.raises(RecordError, match=rf"a\.tfrecord, record at byte {start}: "):
        files.fetch([0, 1, 2])


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_file_cut_short(paths, cut):
    files = RecordFiles(paths)
    content = paths[2].read_bytes()
    paths[2].write_bytes(content[:-cut])
    with pytest.raises(RecordError, match=r"b\.tfrecord, record at byte \d+: .*cut short"):
        RecordFiles(paths)
    with pytest.raises(RecordError, match=r"b\.tfrecord, record at byte \d+: .*cut short"):
        files.fetch([6])


def test_file_cut_short_within_a_header(paths):
    with open(paths[0], "ab") as stream:
        stream.write(b"\1\0\0")
    with pytest.raises(RecordError, match="cut short"):
        RecordFiles(paths)


def test_file_that_is_no_tfrecord(tmp_path):
    (tmp_path / "a.txt").write_text("some text that is long enough for a header")
    with pytest.raises(RecordError, match=r"a\.txt, record at byte 0: .*no TFRecord file"):
        RecordFiles(tmp_path / "a.txt")


def test_compressed_file_is_told(tmp_path, examples):
    path = _write(tmp_path / "a.tfrecord", examples, "GZIP")
    with pytest.raises(RecordError, match="without compression"):
        RecordFiles(path)


def test_missing_label_tells_what_is_there(tmp_path, examples):
    other = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 2]))
    path = _write(tmp_path / "a.tfrecord", [*examples, _example(1, ids=other)])
    with pytest.raises(RecordError, match=r"byte 0: .*'class'.*image \(bytes_list\), label"):
        RecordFiles(path, label_feature="class")
    with pytest.raises(RecordError, match="one int64 in the feature 'image'"):
        RecordFiles(path, label_feature="image")


def test_record_that_is_no_example(tmp_path):
    path = _write(tmp_path / "a.tfrecord", [_example(1), b"\xff\xff\xff"])
    with pytest.raises(RecordError, match=r"record at byte [1-9]\d*: .*no tf.train.Example"):
        RecordFiles(path)


def test_written_index_saves_the_scan(paths, examples, monkeypatch):
    for path in paths:
        write_index(path)
    monkeypatch.setattr(records, "_scan", None)
    files = RecordFiles(paths)
    np.testing.assert_array_equal(files.labels, range(7))
    assert files.fetch([5, 0]) == [examples[5], examples[0]]


def test_index_leaves_nothing_half_written(paths):
    _flip(paths[0], 14)
    with pytest.raises(RecordError):
        write_index(paths[0])
    assert sorted(path.name for path in paths[0].parent.iterdir()) == [
        "a.tfrecord",
        "b.tfrecord",
        "empty.tfrecord",
    ]


def _grow(paths):
    _write(paths[0], [_example(label) for label in range(20)])


def _spoil(paths):
    (paths[0].parent / "a.tfrecord.index.npz").write_bytes(b"PK nonsense")


@pytest.mark.parametrize("change, count", [(_grow, 23), (_spoil, 7)])
def test_index_that_does_not_fit_is_told_and_not_used(paths, change, count):
    write_index(paths[0])
    change(paths)
    with pytest.warns(UserWarning, match=r"a\.tfrecord\.index\.npz does not fit"):
        assert len(RecordFiles(paths)) == count


def test_index_of_another_label_is_not_used(paths):
    write_index(paths[0])
    with pytest.warns(UserWarning, match="does not fit"), pytest.raises(RecordError):
        RecordFiles(paths[0], label_feature="other")


def test_file_of_the_same_size_that_changed_since_indexed(tmp_path):
    path = _write(tmp_path / "a.tfrecord", [_example(1, b"12345"), _example(1, b"123")])
    write_index(path)
    _write(path, [_example(1, b"123"), _example(1, b"12345")])
    with pytest.raises(RecordError, match=r"expected \d+ bytes of data, found \d+"):
        RecordFiles(path).fetch([0])


def test_progress_sees_every_path(paths):
    seen = []
    RecordFiles(paths, progress=lambda items: (seen.append(item) or item for item in items))
    assert seen == [str(path) for path in paths]
