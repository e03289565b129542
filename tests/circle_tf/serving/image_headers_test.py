"""Headers of image files: their pixels are found before anything is decoded."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from circle_tf.serving import image_headers

SIDES = [(1, 1), (7, 300), (300, 7), (2, 16000)]  # Width and height.
# What libjxl writes for black images. Without Pillow's help: it reads and writes no JPEG XL.
BARE = {
    (3, 2): "ff0a08401009080401001c004b188b15820300",
    (700, 9): "ff0a408076058804080201001800000080000880004b188b158201070007000700",
}
# The first bytes of others: a ratio of sides, sides of 8's, a side of 13 bits, and of 18.
STARTS = {
    (300, 600): "ff0aba1260258804080201008002000000032c00032c0003",
    (16, 9000): "ff0a3c19013c00910802010080020000000000000000c002",
    (24, 16): "ff0a03412408020100a4024b189b9c71840338800338204a",
}
BOXES = bytes.fromhex("0000000c4a584c200d0a870a00000014667479706a786c20000000006a786c20")


@pytest.fixture(scope="module")
def check():
    """`fn(content, max_pixels) -> content`, traced once."""
    spec = [tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)]
    return tf.function(image_headers.within_pixels, input_signature=spec)


def _file(kind, size, **options):
    stream = io.BytesIO()
    Image.new("RGB", size, (3, 4, 5)).save(stream, kind, **options)
    return stream.getvalue()


def _refused(check, content, pixels):
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"(?s)may have at most.*{pixels}\]"):
        check(content, pixels - 1)


@pytest.mark.parametrize("size", SIDES)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"exif": b"Exif\0\0", "quality": 50}),
    ],
    ids=str,
)
def test_files_of_all_formats_pass_by_their_pixels(check, kind, options, size):
    content = _file(kind, size, **options)
    _refused(check, content, size[0] * size[1])
    assert check(content, size[0] * size[1]).numpy() == content


def _in_boxes(image, *, parts=False, long=False, before=b""):
    name, payload = (b"jxlp", b"\x80\0\0\0" + image) if parts else (b"jxlc", image)
    head = struct.pack(">I", 8 + len(payload)) + name
    if long:
        head = struct.pack(">I", 1) + name + struct.pack(">Q", 16 + len(payload))
    return BOXES[:32] + before + head + payload


@pytest.mark.parametrize("size", [*BARE, *STARTS], ids=str)
def test_jpeg_xl_passes_by_its_pixels(check, size):
    content = bytes.fromhex((BARE | STARTS)[size])
    exif = struct.pack(">I", 30) + b"Exif" + b"jxlc" * 5 + b"xx"
    for whole in (
        content,
        _in_boxes(content),
        _in_boxes(content, parts=True),
        _in_boxes(content, long=True),
        _in_boxes(content, before=exif),
    ):
        _refused(check, whole, size[0] * size[1])
        assert check(whole, size[0] * size[1]).numpy() == whole


def test_jpeg_xl_that_hides_its_sides_is_no_image(check):
    split = struct.pack(">I", 14) + b"jxlp" + b"\0\0\0\0" + b"\xff\x0a"
    for content in (BOXES, BOXES + split, BOXES + split + _in_boxes(b"a", parts=True)[32:]):
        assert check(content, 1).numpy() == b""


def _gif(frames, *, blocks=255, extensions=b"", size=(64, 48)):
    """A GIF of several frames of noise, with a table of colours each, stored in small blocks."""
    made = b""
    for seed in range(frames):
        stream = io.BytesIO()
        noise = np.random.default_rng(seed).integers(0, 256, size[::-1]).astype(np.uint8)
        Image.fromarray(noise).convert("P").save(stream, "GIF")
        content = stream.getvalue()
        start = content.index(b",\0\0\0\0" + struct.pack("<HH", *size))
        table = content[13 : 13 + 768]
        data, at = b"", start + 11
        while content[at]:
            data += content[at + 1 : at + 1 + content[at]]
            at += content[at] + 1
        parts = [data[n : n + blocks] for n in range(0, len(data), blocks)]
        stored = b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
        frame = content[start : start + 9] + b"\x87" + table + content[start + 10 : start + 11]
        made += extensions + frame + stored
    return b"GIF89a" + struct.pack("<HHBBB", *size, 0, 0, 0) + made + b";"


COMMENT = b"!\xfe" + b"\x03a,b" * 3 + b"\0"


@pytest.mark.parametrize("blocks", [255, 254, 1])
@pytest.mark.parametrize("extensions", [b"", COMMENT * 2])
def test_of_a_gif_the_first_frame_is_left(check, blocks, extensions):
    content = _gif(3, blocks=blocks, extensions=extensions)
    found = check(content, 64 * 48).numpy()
    assert found == _gif(1, blocks=blocks, extensions=extensions)
    decoded = [tf.io.decode_image(c, expand_animations=False) for c in (content, found)]
    np.testing.assert_array_equal(*decoded)
    _refused(check, content, 64 * 48)


def test_a_gif_without_an_end_to_its_extensions_is_no_image(check):
    endless = b"GIF89a" + bytes(7) + b"!\xfe" + b"\x01,\x02,," * 20_000
    for content in (endless, b"GIF89a", b"GIF89a" + bytes(7) + COMMENT * 100 + _gif(1)[13:]):
        assert check(content, 1).numpy() == b";"


HUGE = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 16000, 16000),
    "gif": b"GIF89a" + bytes(7) + b"," + struct.pack("<HHHHB", 0, 0, 16000, 16000, 0),
    "bmp": b"BM" + bytes(16) + struct.pack("<ii", 16000, -16000),
    "webp": b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + struct.pack("<I", 15999)[:3] * 2,
    # Large sides, of 18 bits, and as wide as high.
    "jpeg xl": b"\xff\x0a" + (2 << 1 | 15999 << 3 | 1 << 21).to_bytes(8, "little"),
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_header_alone_is_enough(check, kind):
    _refused(check, HUGE[kind], 16000 * 16000)


def test_what_is_cut_off_or_no_image_is_left_to_the_decoder(check):
    whole = [_file(kind, (40, 30)) for kind in ("PNG", "GIF", "BMP", "WEBP")]
    whole += [_in_boxes(bytes.fromhex(BARE[3, 2]), parts=True), b"no image"]
    for content in whole:
        for end in range(min(64, len(content))):
            try:
                check(content[:end], 40 * 30)
            except tf.errors.InvalidArgumentError as error:
                assert "may have at most" in error.message  # Sides that are cut in half.
