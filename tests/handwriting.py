"""Made-up handwriting, laid out as Omniglot is: strokes of a pen, drawn anew by each hand."""

import io

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["alphabets", "drawing", "one_shot_runs"]

_SIDE = 105  # pixels, as Omniglot's


def _character(rng):
    """Two or three strokes: the points that a pen passes, in 0..1."""
    return [rng.uniform(0.2, 0.8, [rng.integers(3, 5), 2]) for _ in range(rng.integers(2, 4))]


def _smooth(points):
    """Chaikin's corner cutting, three times."""
    for _ in range(3):
        near, far = points[:-1] * 0.75 + points[1:] * 0.25, points[:-1] * 0.25 + points[1:] * 0.75
        inner = np.stack([near, far], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], inner, points[-1:]])
    return points


def drawing(character, rng):
    """Bytes of a black and white PNG of 105 x 105 pixels, black lines on white.

    Args:
        character: list of strokes, points `[n, 2]` in 0..1.
        rng: of the hand.

    Returns:
        The bytes of the file.
    """
    image = Image.new("1", (_SIDE, _SIDE), 1)
    pen, shear = ImageDraw.Draw(image), rng.normal(0, 0.08, [2, 2])
    for points in character:
        points = points + rng.normal(0, 0.025, points.shape)
        points = 0.5 + (points - 0.5) @ (np.eye(2) + shear) + rng.normal(0, 0.02, 2)
        line = [tuple(point) for point in _smooth(points) * _SIDE]
        pen.line(line, fill=0, width=3)
    stream = io.BytesIO()
    image.save(stream, "png")
    return stream.getvalue()


def alphabets(root, *, names, characters=3, drawings=3, seed=0):
    """Writes alphabets: images_background/Alphabet/character01/0001_01.png, ...

    Args:
        root: folder to write into, a pathlib.Path.
        names: of the alphabets.
        characters: of each.
        drawings: of each character.
        seed: whole number.
    """
    rng = np.random.default_rng(seed)
    number = 0
    for name in names:
        for place in range(1, characters + 1):
            number += 1
            folder = root / "images_background" / name / f"character{place:02d}"
            folder.mkdir(parents=True)
            character = _character(rng)
            for hand in range(1, drawings + 1):
                (folder / f"{number:04d}_{hand:02d}.png").write_bytes(drawing(character, rng))


def one_shot_runs(root, *, runs=2, ways=4, seed=1):
    """Writes runs as Lake et al. published them: run01/training/class01.png, class_labels.txt, ...

    Args:
        root: folder to write into, a pathlib.Path.
        runs: how many.
        ways: characters of each.
        seed: whole number.
    """
    rng = np.random.default_rng(seed)
    for run in range(1, runs + 1):
        name = f"run{run:02d}"
        for folder in ("training", "test"):
            (root / name / folder).mkdir(parents=True)
        lines = []
        for item, place in enumerate(rng.permutation(ways), 1):
            character = _character(rng)
            files = f"{name}/test/item{item:02d}.png", f"{name}/training/class{place + 1:02d}.png"
            for file in files:
                (root / file).write_bytes(drawing(character, rng))
            lines.append(" ".join(files))
        (root / name / "class_labels.txt").write_text("\n".join(lines) + "\n")
