"""Which files of a folder are images; and what is written of that is the list itself."""

import os
import pathlib
import re

from circle_tf.utils import image_files

ROOT = pathlib.Path(__file__).absolute().parents[3]


def test_images_below_a_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    names = ["b.png", "a.JPeG", "sub/c.webp", "sub/d.jxl", "notes.txt", "._a.png", "Thumbs.db"]
    names += [".ipynb_checkpoints/b.png", "__MACOSX/b.png"]
    for path in [*(tmp_path / "photos" / name for name in names), elsewhere / "e.gif"]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "photos" / "link").symlink_to(elsewhere)
    (tmp_path / "photos" / "sub" / "back").symlink_to(tmp_path / "photos")
    folder = str(tmp_path / "photos")
    images = [f"{folder}/{name}" for name in ("a.JPeG", "b.png", "link/e.gif", "sub/c.webp")]
    assert image_files.images_below(folder) == [*images, f"{folder}/sub/d.jxl"]
    assert set(image_files.files_below(folder)) - set(image_files.images_below(folder)) == {
        f"{folder}/notes.txt"
    }
    assert image_files.files_below(str(tmp_path / "none")) == []


def test_links_that_lead_above_the_folder_are_not_followed(tmp_path):
    """Of a class's folder they would bring the other classes in."""
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert image_files.files_below(str(tmp_path / "a")) == [str(tmp_path / "a" / "1.png")]


def test_names_that_are_not_utf8():
    odd = os.fsdecode(b"caf\xe9.PNG")
    assert image_files.is_image(odd) and not image_files.is_utf8(odd)
    assert image_files.printable(odd) == r"caf\xe9.PNG"
    assert image_files.is_utf8("名前 ä") and image_files.printable("名前 ä") == "名前 ä"


def test_the_documents_name_the_formats():
    for name in ("README.md", "docs/publishing.md"):
        text = re.sub(r"\s+", " ", (ROOT / name).read_text())
        (found,) = re.findall(r"JPEG, PNG, [^|:]*", text)
        assert re.split(", | and ", found.strip()) == list(image_files.FORMATS)
