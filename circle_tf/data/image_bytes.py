"""What TensorFlow's decoders leave undone: the orientation in EXIF, the colours of a BMP's palette.

Written in TensorFlow operations, so that a servable does as training does.
"""

import tensorflow as tf

__all__ = ["RARE", "bmp_pixels", "checked_webp", "upright"]

# A pattern of how a file begins that `decode_image` alone does not show as it is: a BMP, a WebP, a
# JPEG XL (bare or in a container), or what notes an orientation but upright, in the order of bytes
# of Intel or of Motorola. To match it costs next to nothing beside decoding.
RARE = (
    r"(?:BM|RIFF|\C\n|\x00\x00\x00\x0cJXL)\C*|\C*(?:\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00|"
    r"\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08])\C*"
)
# Before the pixels a camera writes a few segments; a hostile file could have millions.
_MOST_SEGMENTS = 64
_MOST_TAGS = 512
_ORIENTATION = 0x0112
_MASKS = b"\x00\x00\xff\x00\x00\xff\x00\x00\xff\x00\x00\x00"  # Of red, green, blue, as ever.


def upright(image, content):
    """Turns an image as viewers do, by the orientation that its camera noted.

    Args:
        image: `[H, W, C]`, as the file has it.
        content: bytes of the file, a scalar string: JPEG, WebP, or PNG with EXIF before its pixels.

    Returns:
        `[H, W, C]`, or `[W, H, C]` where the camera was held on its side. As it was where no
        orientation is noted, or none that can be read.

    Example:
        >>> image = tf.reshape(tf.range(6), [2, 3, 1])
        >>> upright(image, tf.constant(b"no EXIF"))[..., 0].numpy().tolist()
        [[0, 1, 2], [3, 4, 5]]
    """
    number = _orientation(content)
    image = tf.transpose(image, tf.where(number >= 5, [1, 0, 2], [0, 1, 2]))
    flips = [_is_one_of(number, [3, 4, 7, 8]), _is_one_of(number, [2, 3, 6, 7])]
    return tf.reverse(image, tf.boolean_mask([0, 1], flips))


def checked_webp(content):
    """The bytes as they are, once they are not those of an animated WebP.

    TensorFlow 2.21 writes beyond its memory for one that is opaque.

    Args:
        content: bytes of the file, a scalar string.

    Returns:
        `content`.

    Raises:
        tf.errors.InvalidArgumentError: it is animated.
    """
    message = "An animated WebP is not read: save one of its frames, or a GIF."
    still = tf.logical_not(_has_webp_flag(content, 0x02))
    with tf.control_dependencies([tf.debugging.Assert(still, [message])]):
        return tf.identity(content)


def bmp_pixels(content):
    """Decodes a BMP: of 1, 4 or 8 bits a pixel by its palette, of 24 or 32 without transparency.

    Args:
        content: bytes of the file, a scalar string.

    Returns:
        `[H, W, 3]` uint8.

    Raises:
        tf.errors.InvalidArgumentError: it is cut off, compressed, or of another kind.
    """
    bits, compression = _little(content, 28, 2), _little(content, 30, 4)
    plain = tf.equal(compression, 0)
    masked = tf.equal(compression, 3) & tf.equal(_text(content, 54, 12), _MASKS)
    indexed = _is_one_of(bits, [1, 4, 8])
    direct = _is_one_of(bits, [24, 32])
    known = (_little(content, 14, 4) >= 40) & ((indexed & plain) | (direct & (plain | masked)))
    message = (
        "This BMP is cut off, or of a kind that is not read (compressed, of 16 bits a pixel, or "
        "of OS/2): save it as PNG."
    )
    with tf.control_dependencies([tf.debugging.Assert(known, [message])]):
        return tf.cond(
            indexed,
            lambda: _by_palette(content, bits),
            lambda: tf.io.decode_bmp(content)[..., :3],
        )


def _by_palette(content, bits):
    width, height = _signed(_little(content, 18, 4)), _signed(_little(content, 22, 4))
    rows, line = tf.abs(height), (width * bits + 31) // 32 * 4
    data = _text(content, _little(content, 10, 4), rows * line)
    whole = (width > 0) & (rows > 0) & tf.equal(_length(data), rows * line)
    with tf.control_dependencies([tf.debugging.Assert(whole, ["This BMP is cut off."])]):
        packed = tf.reshape(tf.io.decode_raw(data, tf.uint8), [rows, line, 1])
    shifts = tf.cast(tf.range(8 - bits, -1, -bits), tf.uint8)
    places = tf.bitwise.right_shift(packed, shifts) & tf.cast(2**bits - 1, tf.uint8)
    places = tf.cast(tf.reshape(places, [rows, -1])[:, :width], tf.int32)
    colours = _bytes(content, 14 + _little(content, 14, 4), 4 * 2**bits)
    colours = tf.cast(tf.reshape(colours, [-1, 4])[:, 2::-1], tf.uint8)  # Blue comes first.
    pixels = tf.gather(colours, places)
    return tf.cond(height > 0, lambda: tf.reverse(pixels, [0]), lambda: pixels)


def _orientation(content):
    """1 to 8, as EXIF has them."""
    kinds = [
        (_starts(content, b"\xff\xd8\xff"), lambda: _exif_in_jpeg(content)),
        (_starts(content, b"\x89PNG\r\n\x1a\n"), lambda: _exif_in_png(content)),
        (_has_webp_flag(content, 0x08), lambda: _exif_in_webp(content)),
    ]
    at = tf.case(kinds, default=lambda: tf.constant(-1, tf.int64))
    return tf.cond(at < 0, lambda: tf.constant(1, tf.int64), lambda: _noted(content, at))


# Where EXIF begins in a file; -1 if it has none.


def _exif_in_jpeg(content):
    def is_exif(at):
        return tf.equal(_text(content, at, 2) + _text(content, at + 4, 6), b"\xff\xe1Exif\0\0")

    def is_passed(at):  # Another application's, or a comment.
        marker = _big(content, at, 2)
        return ((marker >= 0xFFE0) & (marker <= 0xFFEF)) | tf.equal(marker, 0xFFFE)

    return _find(2, is_exif, is_passed, lambda at: at + 2 + _big(content, at + 2, 2), header=4)


def _exif_in_png(content):
    def is_exif(at):
        return tf.equal(_text(content, at + 4, 4), b"eXIf")

    def is_passed(at):
        return tf.logical_not(_is_one_of(_text(content, at + 4, 4), ["", "IDAT"]))

    return _find(8, is_exif, is_passed, lambda at: at + 12 + _big(content, at, 4), header=8)


def _exif_in_webp(content):
    def is_exif(at):
        return tf.equal(_text(content, at, 4), b"EXIF")

    def following(at):
        size = _little(content, at + 4, 4)
        return at + 8 + size + size % 2

    return _find(12, is_exif, lambda at: at < _length(content), following, header=8)


def _find(start, is_wanted, is_passed, following, *, header):
    """Where the content of the wanted segment begins."""
    at = tf.while_loop(
        lambda at: is_passed(at) & tf.logical_not(is_wanted(at)),
        lambda at: [following(at)],
        [tf.constant(start, tf.int64)],
        maximum_iterations=_MOST_SEGMENTS,
    )[0]
    return tf.where(is_wanted(at), at + header, -1)


def _noted(content, at):
    """The orientation in the EXIF, a TIFF, that begins `at`."""
    at += tf.where(tf.equal(_text(content, at, 6), b"Exif\0\0"), tf.constant(6, tf.int64), 0)
    big = tf.equal(_text(content, at, 2), b"MM")

    def number(at, size):
        return tf.where(big, _big(content, at, size), _little(content, at, size))

    tags = at + number(at + 4, 4)
    count = tf.minimum(number(tags, 2), _MOST_TAGS)
    rows = tf.reshape(_bytes(content, tags + 2, 12 * count), [-1, 12])
    weights = tf.where(big, tf.constant([256, 1], tf.int64), tf.constant([1, 256], tf.int64))
    is_it = tf.equal(tf.reduce_sum(rows[:, :2] * weights, axis=1), _ORIENTATION)
    found = tf.reduce_sum(tf.boolean_mask(rows, is_it)[:1, 8:10] * weights)
    return tf.where((found >= 1) & (found <= 8), found, 1)


# Bytes and the numbers in them; beyond the end of the file there are zeros.


def _length(content):
    return tf.cast(tf.strings.length(content), tf.int64)


def _text(content, at, count):
    at = tf.minimum(tf.cast(at, tf.int64), _length(content))
    return tf.strings.substr(content, at, tf.cast(count, tf.int64))


def _bytes(content, at, count):
    found = tf.cast(tf.io.decode_raw(_text(content, at, count), tf.uint8), tf.int64)
    return tf.pad(found, [[0, tf.cast(count, tf.int32) - tf.size(found)]])


def _little(content, at, size):
    return tf.reduce_sum(_bytes(content, at, size) * [256**place for place in range(size)])


def _big(content, at, size):
    return tf.reduce_sum(_bytes(content, at, size) * [256**place for place in range(size)][::-1])


def _signed(number):
    return tf.where(number < 1 << 31, number, number - (1 << 32))


def _starts(content, text):
    return tf.equal(tf.strings.substr(content, 0, len(text)), text)


def _has_webp_flag(content, flag):
    extended = _starts(content, b"RIFF") & tf.equal(_text(content, 8, 8), b"WEBPVP8X")
    return extended & tf.not_equal(_bytes(content, 20, 1)[0] & flag, 0)


def _is_one_of(value, values):
    return tf.reduce_any(tf.equal(value, tf.constant(values, value.dtype)))
