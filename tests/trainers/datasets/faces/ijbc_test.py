"""IJB-C: the lists of templates and pairs."""

import pytest

from tests import layouts as fixtures
from trainers.datasets import DataError
from trainers.datasets.faces import ijbc


def test_ijbc_lists(tmp_path):
    fixtures.ijbc(tmp_path)
    found = ijbc.read(str(tmp_path))
    assert found.files == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert found.templates.tolist() == [1, 1, 2, 3, 3]
    assert found.media.tolist() == [10, 11, 12, 13, 13]
    assert found.points.shape == (5, 5, 2) and found.points[0, 1].tolist() == [2.5, 3.5]
    assert (found.first.tolist(), found.second.tolist()) == ([1, 1], [2, 3])
    assert found.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("ijbc_template_pair_label.txt", "1 9 1\n", "compares 1 templates that .* not have: 9"),
        (
            "ijbc_template_pair_label.txt",
            "1 x 1\n",
            "must have three whole numbers in each line: .*x",
        ),
        ("ijbc_template_pair_label.txt", "1 2\n", "three whole numbers in each line; found 2"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1\n", "line 1 of .* has not 1 name and 2 numbers"),
        ("ijbc_face_tid_mid.txt", "1.jpg 1 10\n", "must list the same images in the same order"),
    ],
)
def test_ijbc_lists_that_do_not_fit(tmp_path, file, content, message):
    fixtures.ijbc(tmp_path)
    (tmp_path / "meta" / file).write_text(content)
    with pytest.raises(DataError, match=message):
        ijbc.read(str(tmp_path))
