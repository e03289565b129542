"""Classes and thumbnails of a published gallery, by id."""

import base64

import numpy as np
import pytest

from circle_tf.serving.gallery import Gallery
from export.saved_model import pictures

SMALL = [b"one\x00", b"", b"three"]


def _url(content):
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


@pytest.mark.parametrize("ids", [["a", "b", "a"], [7, 8, 7]])
def test_what_was_written_is_found_by_id_the_first_of_equal_ones(tmp_path, ids):
    pictures.write(tmp_path, Gallery(np.eye(3), ids, ["x", "y", "z"], thumbnails=SMALL))
    found = pictures.Pictures(tmp_path)
    names = [*dict.fromkeys(map(str, ids)), "c"]
    expected = [{"class": "x", "thumbnail": _url(SMALL[0])}, {"class": "y"}, {}]
    assert [found.of(name) for name in names] == expected


def test_without_classes_or_thumbnails(tmp_path):
    pictures.write(tmp_path, Gallery(np.eye(3), list("abc")))
    assert pictures.Pictures(tmp_path).of("b") == {}
    pictures.write(tmp_path, Gallery(np.eye(3), list("abc"), thumbnails=SMALL))
    assert pictures.Pictures(tmp_path).of("c") == {"thumbnail": _url(SMALL[2])}


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_version_without_a_whole_file_knows_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "assets.extra").mkdir()
        (tmp_path / pictures.PATH).write_bytes(content)
    assert pictures.Pictures(tmp_path).of("a") == {}
