"""Open-set character recognition without a download: glyphs of the fonts that matplotlib ships.

Class = character, example = the character in one of the twelve DejaVu text faces, with a small
rotation, shift and scale of its own. Half of the characters train, in ten faces; the other half
are never seen. One-shot accuracy looks unseen characters in the two held-out faces up in one
face that training saw; leave-one-out retrieval takes all twelve.
"""

import math
import os
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from circle_tf.data import sampler
from trainers.datasets import base, images

__all__ = ["FACES", "GALLERY_FACE", "QUERY_FACES", "character_classes", "load", "render"]

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSans-BoldOblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-BoldOblique",
)
GALLERY_FACE = "DejaVuSans"
QUERY_FACES = ("DejaVuSerif-Italic", "DejaVuSansMono-Bold")

MAX_ROTATION = math.radians(8)
MAX_SHIFT = 2 / 32  # of the image's side
MAX_SCALING = 0.06
EM = 26 / 32  # font size, of the image's side
BOX = 26 / 32  # no glyph is larger than this, of the image's side
EVENNESS = 0.7  # 1 leaves the sizes of glyphs as they are, 0 makes all as large as the box
SUPERSAMPLING = 2
CLOSE = 79  # matplotlib.path.Path.CLOSEPOLY


def load(config) -> base.Dataset:
    """Renders the set; nothing is read but the fonts.

    Args:
        config: `image_size` (side in pixels, default 32), `channels` (1 or 3, default 1), `seed`
            (default 0: the split of the classes and the look of every glyph).

    Returns:
        The data set; `queries` and `gallery` are the one-shot protocol.
    """
    shape = size, _, channels = images.square_shape(config, size=32)
    seed = config.get("seed", 0)
    names = tuple(members[0] for members in character_classes())
    order = _stream(seed, 0, len(names)).argsort(kind="stable")
    seen, unseen = np.sort(order[: len(names) // 2]), np.sort(order[len(names) // 2 :])
    pictures = render(names, image_size=size, seed=seed)
    pictures = np.repeat(pictures, channels, axis=-1)
    queries = [FACES.index(face) for face in QUERY_FACES]
    others = [face for face in range(len(FACES)) if face not in queries]

    def split(classes, faces):
        picked = pictures[np.ix_(classes, faces)].reshape(-1, *pictures.shape[2:])
        labels = np.repeat(np.arange(len(classes)), len(faces))
        return base.Split(picked, labels, tuple(names[c] for c in classes))

    return base.Dataset(
        name="glyphs",
        train=split(seen, others),
        test=split(unseen, range(len(FACES))),
        queries=split(unseen, queries),
        gallery=split(unseen, [FACES.index(GALLERY_FACE)]),
        image_shape=shape,
        report=f"glyphs: {len(seen)} characters in {len(others)} faces to train on, "
        f"{len(unseen)} unseen characters in {len(FACES)} faces; queries in "
        f"{' and '.join(QUERY_FACES)}, gallery in {GALLERY_FACE}.",
    )


def character_classes() -> list[tuple[str, ...]]:
    """Letters, numbers and symbols that all twelve faces draw, as classes.

    Characters are one class when ANY face draws them with the same outline, wherever it stands on
    the line (Latin A, Greek Alpha, Cyrillic A; superscript and subscript two), and transitively
    so: pictures are centred, and no face then holds one picture under two labels.

    Returns:
        The characters of each class, lowest code point first; classes by first code point.

    Example:
        >>> [members for members in character_classes() if "A" in members]
        [('A', 'Α', 'А')]
    """
    fonts = [_font(face) for face in FACES]
    common = sorted(set.intersection(*(set(font.get_charmap()) for font in fonts)))
    common = [code for code in common if unicodedata.category(chr(code))[0] in "LNS"]
    outlines = [[_outline(font, code) for code in common] for font in fonts]
    parent = list(range(len(common)))

    def root(node):
        while parent[node] != node:
            node = parent[node]
        return node

    for face in outlines:
        first_with = {}
        for node, outline in enumerate(face):
            low, high = sorted((root(first_with.setdefault(outline, node)), root(node)))
            parent[high] = low
    classes = {}
    for node, code in enumerate(common):
        if all(face[node] for face in outlines):
            classes.setdefault(root(node), []).append(chr(code))
    return [tuple(members) for members in classes.values()]


def render(characters, *, image_size: int, seed: int) -> np.ndarray:
    """Draws every character once in every face, light on dark.

    Each picture has its own rotation within 8 degrees, shift within 2 pixels of 32 and scale
    within 6 %, which depend on nothing but `seed` and its place in the result. All characters
    share one font size, so that o and O differ; those too large for the picture are shrunk.

    Args:
        characters: strings of one character each.
        image_size: side of the pictures in pixels.
        seed: whole number.

    Returns:
        Images `[characters, faces, image_size, image_size, 1]` uint8.
    """
    pictures = np.zeros([len(characters), len(FACES), image_size, image_size, 1], np.uint8)
    jitter = _stream(seed, 1, pictures.shape[0] * pictures.shape[1] * 4)
    jitter = jitter.reshape(len(characters), len(FACES), 4) * 2 - 1
    side = image_size * SUPERSAMPLING
    for face, name in enumerate(FACES):
        # The basic layout engine: the other one is not in every build of Pillow.
        font = ImageFont.truetype(
            _font_path(name), round(EM * side), layout_engine=ImageFont.Layout.BASIC
        )
        for row, character in enumerate(characters):
            picture = _draw(character, font=font, side=side, jitter=jitter[row, face])
            pictures[row, face, :, :, 0] = picture
    return pictures


def _draw(character, *, font, side, jitter):
    """One picture of `side` / SUPERSAMPLING pixels; jitter [4] in [-1, 1)."""
    canvas = _canvas(character, font=font)
    left, top, right, bottom = canvas.getbbox()
    fullness = max(right - left, bottom - top) / (BOX * side)
    scale = (min(fullness, 1.0) ** EVENNESS / fullness) * (1 + MAX_SCALING * jitter[0])
    angle = MAX_ROTATION * jitter[1]
    # Pillow maps output pixels to input pixels: the inverse of what the glyph undergoes.
    cos, sin = math.cos(angle) / scale, math.sin(angle) / scale
    x, y = side / 2 + jitter[2:] * MAX_SHIFT * side
    from_x = (cos, sin, (left + right) / 2 - cos * x - sin * y)
    from_y = (-sin, cos, (top + bottom) / 2 + sin * x - cos * y)
    moved = canvas.transform(
        (side, side), Image.Transform.AFFINE, from_x + from_y, Image.Resampling.BILINEAR
    )
    return moved.reduce(SUPERSAMPLING)


def _canvas(character, *, font):
    """The character with a margin of two pixels."""
    left, top, right, bottom = font.getbbox(character)
    canvas = Image.new("L", (right - left + 4, bottom - top + 4))
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), character, fill=255, font=font)
    return canvas


def _font(face):
    """FreeType's view of a face, for outlines."""
    from matplotlib import ft2font

    return ft2font.FT2Font(_font_path(face))


def _outline(font, code):
    """A character's outline in font units, moved to the origin; None when there is nothing."""
    from matplotlib import ft2font

    font.load_char(code, flags=ft2font.LoadFlags.NO_SCALE)
    vertices, commands = font.get_path()
    if not len(vertices):
        return None
    drawn = vertices[commands != CLOSE]  # the other vertices have no meaning
    return (drawn - drawn.min(axis=0)).tobytes(), commands.tobytes()


def _font_path(face):
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")


def _stream(seed, purpose, count):
    """`count` numbers in [0, 1): a pure function of the arguments, the same under every NumPy."""
    raw = sampler.raw_bits(count, seed=seed, place=(purpose,))
    return (raw >> np.uint64(11)) * 2.0**-53
