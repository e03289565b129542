"""The pixels that an image file says it has, read in the graph before it is decoded.

A decoder makes room for what the header says: a file of a few bytes can ask for all memory.
"""

import tensorflow as tf

__all__ = ["within_pixels"]

_READ = 64  # Bytes at the start of a file; all formats but GIF and JPEG XL have their sides there.
# How far a GIF is walked to the end of its first frame: its extensions, the runs of blocks in each
# of them and in the frame, and the longest run.
_EXTENSIONS, _EXTENSION_RUNS, _FRAME_RUNS, _RUN = 64, 1 << 10, 1 << 16, 1 << 12
_GIF_PADDING = 2048  # Zeros behind one that ends too early; two tables of colours fit in.
# How far a JPEG XL is walked to its image, and the boxes that it is in.
_BOXES, _WHOLE, _PART = 64, int.from_bytes(b"jxlc", "big"), int.from_bytes(b"jxlp", "big")
_JPEG_XL_HEAD = 16  # Bytes that hold its sides.
_RATIOS = ((1, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))  # Width to height.


def within_pixels(content, max_pixels):
    """The file, once its header is found to ask for no more pixels than allowed.

    A file of no known format passes: the decoder refuses it. A GIF ends after its first frame: the
    decoder would take all of them into memory, and give the first.

    Args:
        content: bytes of the file, a scalar string.
        max_pixels: int, the most pixels, height times width.

    Returns:
        Scalar string; INVALID_ARGUMENT when it is run, if there are more.

    Example:
        >>> content = tf.io.encode_png(tf.zeros([2, 3, 1], tf.uint8))
        >>> within_pixels(content, max_pixels=6).numpy() == content.numpy()
        True
    """
    pixels, content = _read(content)
    message = f"An image file may have at most {max_pixels} pixels; found"
    check = tf.debugging.Assert(pixels <= max_pixels, [message, pixels], name="pixels")
    with tf.control_dependencies([check]):
        return tf.identity(content)


# Traced once for all signatures, and as it stands: that takes seconds.
@tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
def _read(content):
    """The pixels of a file, int64, and what of it is to be decoded."""
    head = _start(content)
    # By prefixes not longer than those by which the decoders tell formats: none slips through.
    is_format = [tf.reduce_all(head[: len(prefix)] == list(prefix)) for prefix, _ in _FORMATS]
    branches = [_reading(read, head, content) for _, read in _FORMATS]
    other = tf.reduce_all(tf.logical_not(is_format))
    index = tf.argmax(tf.cast(tf.stack([*is_format, other]), tf.int32), output_type=tf.int32)
    return tf.switch_case(index, [*branches, lambda: (tf.constant(0, tf.int64), content)])


def _reading(read, head, content):
    return lambda: read(head, content)


def _start(content):
    """The first bytes, int64; of a shorter file with zeros behind them."""
    return tf.cast(tf.io.decode_raw(content, tf.uint8, fixed_length=_READ), tf.int64)


def _number(parts):
    """One number from at most 7 bytes, the lowest first; int64."""
    weights = tf.constant([1 << 8 * place for place in range(7)], tf.int64)
    return tf.reduce_sum(parts * weights[: tf.size(parts)])


# The readers of headers: from the first bytes and the whole file to pixels, and what to decode.


def _jpeg(head, content):
    del head
    return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content), tf.int64)[:2]), content


def _png(head, content):
    width, height = _number(head[19:15:-1]), _number(head[23:19:-1])
    return width * height, content


def _bmp(head, content):
    # Signed: where rows are stored from the top, the height is negative.
    sides = tf.stack([_number(head[18:22]), _number(head[22:26])])
    return tf.reduce_prod(tf.minimum(sides, 2**32 - sides)), content


def _webp(head, content):
    """Lossy, lossless or extended, each with a header of its own."""
    packed = _number(head[21:25])
    sides = {
        b"VP8 ": tf.stack([_number(head[26:28]), _number(head[28:30])]) & 0x3FFF,
        b"VP8L": (tf.stack([packed, packed // (1 << 14)]) & 0x3FFF) + 1,
        b"VP8X": tf.stack([_number(head[24:27]), _number(head[27:30])]) + 1,
    }
    kind = _number(head[12:16])
    is_kind = tf.stack([tf.equal(kind, int.from_bytes(name, "little")) for name in sides])
    pixels = tf.reduce_prod(tf.stack(list(sides.values())), axis=1)
    return tf.reduce_sum(tf.where(is_kind, pixels, 0)), content


def _gif(head, content):
    """The first frame's sides, which may differ from those of the whole."""
    data = tf.io.decode_raw(tf.strings.join([content, b"\0" * _GIF_PADDING]), tf.uint8)
    length = tf.cast(tf.strings.length(content), tf.int64)
    two = tf.constant(2, tf.int64)

    def number(at, size=1):
        return _number(tf.cast(data[at : at + size], tf.int64))

    def colours(flags):  # Bytes of the table of colours that may follow.
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(two, flags & 7), 0)

    def after_extension(at):
        last = _last_block(data, at + 2, _EXTENSION_RUNS)
        return [tf.where(number(last) == 0, last + 1, length)]

    (frame,) = tf.while_loop(
        lambda at: tf.logical_and(at < length, number(at) == ord("!")),
        after_extension,
        [13 + colours(head[10])],
        maximum_iterations=_EXTENSIONS,
    )
    is_frame = number(frame) == ord(",")
    pixels = tf.where(is_frame, number(frame + 5, 2) * number(frame + 7, 2), 0)
    end = _last_block(data, frame + 11 + colours(number(frame + 9)), _FRAME_RUNS) + 1
    end = tf.where(is_frame, end, 0)
    return pixels, tf.strings.join([tf.strings.substr(content, tf.zeros_like(end), end), b";"])


def _last_block(data, at, most):
    """Where the last of a GIF's blocks begins: each says how long it is, and the last says 0."""

    def block(at):
        return [at, tf.cast(tf.gather(data, at), tf.int64)]

    def after_run(at, size):  # Of blocks of one size: one by one takes as long as to decode them.
        sizes = data[at : at + _RUN * (size + 1) : size + 1]
        same = tf.equal(sizes, tf.cast(size, tf.uint8))
        count = tf.argmin(tf.concat([tf.cast(same, tf.uint8), [0]], axis=0))
        return block(at + (size + 1) * count)

    found, _ = tf.while_loop(
        lambda at, size: size > 0, after_run, block(at), maximum_iterations=most
    )
    return found


def _jpeg_xl(head, content):
    """The image alone, or one in a file of boxes."""

    def part(at):
        at = tf.clip_by_value(at, 0, tf.cast(tf.strings.length(content), tf.int64))
        return _start(tf.strings.substr(content, at, tf.constant(_READ, tf.int64)))

    def box(at):  # Its name, size, and where its content begins.
        found = part(at)
        size, name = _number(found[3::-1]), _number(found[7:3:-1])
        is_long = size == 1  # Then it stands behind the name, in 64 bits.
        size = tf.where(is_long, _number(found[15:8:-1]), size)
        return name, size, at + 8 + 8 * tf.cast(is_long, tf.int64)

    (at,) = tf.while_loop(
        lambda at: tf.reduce_all(box(at)[0] != [_WHOLE, _PART]),
        lambda at: [at + box(at)[1]],
        [tf.constant(12, tf.int64)],
        maximum_iterations=_BOXES,
    )
    name, size, begin = box(at)
    begin += 4 * tf.cast(name == _PART, tf.int64)
    # Of an image in parts, the first must hold the sides: else they would be read elsewhere.
    whole = (name == _WHOLE) | (size == 0) | (size >= begin - at + _JPEG_XL_HEAD)
    in_boxes = head[0] == 0
    image = part(tf.where(in_boxes, begin, 0))
    is_image = tf.reduce_all(image[:2] == [0xFF, 0x0A]) & (whole | ~in_boxes)
    pixels = tf.where(is_image, _jpeg_xl_pixels(image[2:]), 0)
    return pixels, tf.where(is_image, content, b"")


def _jpeg_xl_pixels(image):
    """From the first bits of the image: each side may be stored in several lengths."""
    one = tf.constant(1, tf.int64)
    lengths = tf.constant([5, 9, 13, 18, 30], tf.int64)

    def bits(at, count):
        number = _number(image[at // 8 : at // 8 + 5])
        return tf.bitwise.right_shift(number, at % 8) % tf.bitwise.left_shift(one, count)

    def side(at):
        count = lengths[(1 - is_small) * (1 + bits(at, 2))]
        at += 2 * (1 - is_small)
        return (bits(at, count) + 1) * (1 + 7 * is_small), at + count

    is_small = bits(0, 1)
    height, at = side(one)
    ratio = bits(at, 3)
    width, _ = side(at + 3)
    over, under = tf.unstack(tf.constant(_RATIOS, tf.int64)[ratio])
    return height * tf.where(ratio == 0, width, height * over // under)


_FORMATS = (
    (b"\xff\xd8", _jpeg),
    (b"\x89PNG", _png),
    (b"GIF", _gif),
    (b"BM", _bmp),
    (b"RIFF", _webp),
    (b"\xff\x0a", _jpeg_xl),
    (b"\0\0\0\x0c", _jpeg_xl),
)
