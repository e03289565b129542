"""LFW: pictures and pairs."""

import os

import pytest
from PIL import Image

from tests import layouts as fixtures
from trainers.datasets import DataError
from trainers.datasets.faces import lfw
from trainers.datasets.published import layouts


def test_lfw_pairs_and_check(tmp_path):
    fixtures.lfw(tmp_path)
    first, second, same = lfw.read_pairs(str(tmp_path))
    assert first[0] == "lfw/Ann_Li/Ann_Li_0001.jpg" and second[2].endswith("Cy_O'Neil_0001.jpg")
    assert same.tolist() == [True, True, False]
    told = "\n".join(layouts.check(lfw.read(str(tmp_path))))
    assert "images         5 images,      3 classes" in told
    assert "pairs.txt: 3 pairs; the protocol has 6,000." in told
    assert "images: 5 images; the protocol has 13,233." in told
    os.remove(tmp_path / "lfw" / "Bo" / "Bo_0002.jpg")
    assert any(
        "1 images that are not there: lfw/Bo/Bo_0002.jpg" in p
        for p in lfw.read(str(tmp_path)).problems
    )
    (tmp_path / "pairs.txt").write_text("10 300\nAnn_Li 1\n")
    with pytest.raises(DataError, match="line 2 of pairs.txt is neither"):
        lfw.read_pairs(str(tmp_path))


def test_aligned_images_may_be_png(tmp_path):
    fixtures.lfw(tmp_path)
    for path in sorted((tmp_path / "lfw").rglob("*.jpg")):
        Image.open(path).save(path.with_suffix(".png"))
        path.unlink()
    found = lfw.read(str(tmp_path))
    assert sorted({*found.parts["images"].files}) == [
        *("lfw/Ann_Li/Ann_Li_0001.png", "lfw/Ann_Li/Ann_Li_0002.png", "lfw/Bo/Bo_0001.png"),
        *("lfw/Bo/Bo_0002.png", "lfw/Cy_O'Neil/Cy_O'Neil_0001.png"),
    ]
    assert not any("not there" in problem for problem in found.problems)
    first, second, _ = lfw.read_pairs(str(tmp_path))
    assert {*first, *second} == {*found.parts["images"].files}
