"""Galleries, indices and queries take of a folder what training takes, and tell of the rest."""

import os

import pytest

from export.cli import console, image_files
from tests.pictures import picture
from trainers.datasets import folder


@pytest.fixture
def root(tmp_path):
    """Two classes, one of them a link, and what systems and notebooks leave behind."""
    elsewhere = tmp_path / "elsewhere"
    names = ["a/1.PNG", "a/._1.png", "a/.ipynb_checkpoints/1.png", "a/.DS_Store", "a/Thumbs.db"]
    names += ["a/deeper/2.jxl", "a/note.txt", "a/3.heic", ".hidden/4.png"]
    for path in [*(tmp_path / "photos" / name for name in names), elsewhere / "5.webp"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    (tmp_path / "photos" / "b").symlink_to(elsewhere)
    (tmp_path / "photos" / "a" / "loop").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "empty").mkdir()
    return tmp_path / "photos"


def test_the_same_files_as_in_training(root, capsys):
    expected = [os.path.relpath(path, root) for path in folder.collect(str(root)).examples]
    assert image_files.inside(str(root)) == expected == ["a/1.PNG", "a/deeper/2.jxl", "b/5.webp"]
    told = f"warning: {root}: left out files that are no images: 1 .heic, 1 .txt.\n"
    assert capsys.readouterr().err == told


def test_paths_that_are_not_utf8_are_refused_by_name(root):
    (root / "a" / os.fsdecode(b"caf\xe9.png")).write_bytes(picture())
    with pytest.raises(
        console.ExportError, match=r"must be UTF-8; found 1 .*: a/caf\\xe9\.png\. Re"
    ):
        image_files.inside(str(root))


def test_no_images(root):
    with pytest.raises(
        console.ExportError, match=r"There are no images in .*; other files: 1 \.tx"
    ):
        (root / "c").mkdir()
        (root / "c" / "a.txt").write_text("notes")
        image_files.inside(str(root / "c"))
