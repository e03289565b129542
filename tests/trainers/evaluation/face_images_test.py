"""Alignment against least squares, and on pictures that were turned."""

import io

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf
from PIL import Image

from trainers.evaluation import face_images

SIDE = 112


def face():
    """A smooth colour picture."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(5 * x + 2 * k) * np.cos(4 * y + k) for k in range(3)]
    return np.rint(127 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def turned(image, *, scale, degrees, shift, side=300):
    """`(picture, points)`: the face within a larger picture, and where its five points are."""
    a = scale * np.exp(1j * np.radians(degrees))
    inverse = 1 / a
    # Rows and columns, as scipy has it, of x + iy = a z + shift.
    matrix = np.array([[inverse.real, inverse.imag], [-inverse.imag, inverse.real]])
    offset = -matrix @ [shift.imag, shift.real]
    planes = [
        scipy.ndimage.affine_transform(
            image[..., c].astype(float), matrix, offset, output_shape=(side, side), order=1
        )
        for c in range(image.shape[-1])
    ]
    points = a * (face_images.REFERENCE @ [1, 1j]) + shift
    picture = np.rint(np.stack(planes, axis=-1)).astype(np.uint8)
    return picture, np.stack([points.real, points.imag], axis=-1)


def encoded(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png")
    return tf.constant(stream.getvalue())


@pytest.mark.parametrize("side", [112, 64])
def test_transforms_are_the_least_squares_similarity(side):
    points = face_images.REFERENCE * 2 + np.random.default_rng(0).normal(0, 8, (4, 5, 2)) + 30
    target = face_images.REFERENCE * side / SIDE
    for row, found in zip(points, face_images.transforms(points, side=side), strict=True):
        (x, y), one, zero = row.T, np.ones(5), np.zeros(5)
        across, down = np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)
        rows, values = np.concatenate([across, down]), np.concatenate(target.T)
        p, q, u, v = np.linalg.lstsq(rows, values, rcond=None)[0]
        back = np.linalg.inv([[p, -q, u], [q, p, v], [0, 0, 1]])
        np.testing.assert_allclose(found, back.ravel()[:8], rtol=1e-4, atol=1e-4)


def test_a_turned_face_is_put_back():
    image = face()
    picture, points = turned(image, scale=1.7, degrees=25, shift=80 + 30j)
    decode = face_images.aligned_decoder((SIDE, SIDE, 3))
    found = decode(encoded(picture), face_images.transforms(points[None], side=SIDE)[0]).numpy()
    inner = (slice(8, -8), slice(8, -8))
    assert np.abs(found[inner].astype(int) - image[inner]).max() <= 3
    grey = face_images.aligned_decoder((SIDE, SIDE, 1))
    found = grey(encoded(picture), face_images.transforms(points[None], side=SIDE)[0]).numpy()
    expected = image[inner] @ [0.299, 0.587, 0.114]
    assert np.abs(found[inner][..., 0] - expected).max() <= 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: face_images.transforms(np.zeros([2, 4, 2]), side=8), r"found \[2, 4, 2\]"),
        (lambda: face_images.transforms(np.full([1, 5, 2], np.nan), side=8), "must be finite"),
        (lambda: face_images.transforms(np.ones([1, 5, 2]), side=8), "face 0 are in one place"),
        (lambda: face_images.aligned_decoder((8, 4, 3)), "the model takes 8 x 4"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
