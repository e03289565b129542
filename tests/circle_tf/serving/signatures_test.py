"""Every signature in a C++ session: right numbers, and INVALID_ARGUMENT for bad input."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from circle_tf.data import decoding
from circle_tf.serving import gallery as galleries
from circle_tf.serving import servable, signatures
from circle_tf.serving.weights import served_model
from export.saved_model import session
from export.verification import probes
from tests import saved_models, stacks
from tests.pictures import picture

pytestmark = stacks.needs_keras_3

IMAGES = saved_models.IMAGES
SHAPE = saved_models.SHAPE
IDS = np.array([f"picture-{n}" for n in range(12)])
CLASSES = np.array(["a", "b", "c"])[np.arange(12) % 3]
SAME, KNOWN = 0.75, 0.7  # Thresholds.
CLASS_NAMES = ["zero", "one", "zwei, drei", "drei", "ἕξ"]


def encoded(images, suffix="png"):
    encode = {
        "png": tf.io.encode_png,
        "jpeg": tf.io.encode_jpeg,
    }[suffix]
    return np.array([encode(image.astype(np.uint8)).numpy() for image in images], object)


def examples(contents):
    def one(content):
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[content]))
        features = tf.train.Features(feature={"image/encoded": feature})
        return tf.train.Example(features=features).SerializeToString()

    return np.array([one(content) for content in contents], object)


@pytest.fixture(scope="module")
def model():
    return saved_models.embedding_model()


@pytest.fixture(scope="module")
def gallery(model):
    rows = np.random.default_rng(3).normal(size=(12, 6))
    return galleries.Gallery(rows, IDS, CLASSES, galleries.embedder_fingerprint(model))


@pytest.fixture(scope="module")
def opened(model, gallery, tmp_path_factory):
    path = servable.save_servable(
        model,
        tmp_path_factory.mktemp("base") / "1",
        signatures=signatures.NAMES,
        gallery=gallery,
        k=4,
        class_weights=np.eye(6)[:5] * 3,
        class_names=CLASS_NAMES,
        verification_threshold=SAME,
        search_threshold=KNOWN,
    )
    with session.SavedModelSession(path) as opened:
        yield opened


def _held_upright(kind):
    """A file that is to be turned before it is shown."""
    noted, stream = Image.Exif(), io.BytesIO()
    noted[0x0112] = 6
    Image.fromarray(IMAGES[0, ..., 0].astype(np.uint8)).save(stream, kind, exif=noted)
    return stream.getvalue()


def _embed(model, images):
    return model(tf.constant(images, tf.float32), training=False).numpy()


@pytest.mark.parametrize("size", [1, 3, 17])
def test_files_and_examples_embed_as_their_pixels(opened, model, size):
    expected = _embed(model, IMAGES[:size])
    contents = encoded(IMAGES[:size])
    found = opened.run({"image_bytes": contents}, signature="serving_bytes")["embeddings"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = opened.run({"examples": examples(contents)}, signature="serving_examples")
    np.testing.assert_allclose(found["embeddings"], expected, atol=1e-6)


def test_files_of_other_sizes_and_kinds_are_read_as_in_training(opened, model):
    big = np.random.default_rng(0).integers(0, 256, (3, 20, 13, 3)).astype(np.uint8)
    contents = [*encoded(big, "jpeg"), _held_upright("jpeg"), picture("bmp", mode="P")]
    if stacks.TENSORFLOW >= (2, 20):  # Which reads WebP.
        contents += [_held_upright("webp"), picture("webp", mode="RGBA")]
    contents = np.array(contents, object)
    decode = decoding.image_decoder(SHAPE)
    pixels = np.stack([decode(content).numpy() for content in contents])
    found = opened.run({"image_bytes": contents}, signature="serving_bytes")["embeddings"]
    np.testing.assert_allclose(found, _embed(model, pixels), atol=1e-6)


def test_similarity_is_the_cosine_of_pairs(opened, model):
    left, right = IMAGES[:5], IMAGES[5:10]
    found = opened.run({"images_a": left, "images_b": right}, signature="similarity")
    expected = np.sum(_embed(model, left) * _embed(model, right), axis=1)
    assert found["similarity"].shape == (5,)
    np.testing.assert_allclose(found["similarity"], expected, atol=1e-6)


@pytest.mark.parametrize("name", ["verify", "verify_bytes"])
def test_pairs_at_the_threshold_and_above_are_the_same(opened, model, name):
    left, right = IMAGES, IMAGES[::-1]
    inputs = {"images_a": left, "images_b": right}
    if name == "verify_bytes":
        inputs = {"image_bytes_a": encoded(left), "image_bytes_b": encoded(right)}
    found = opened.run(inputs, signature=name)
    expected = np.sum(_embed(model, left) * _embed(model, right), axis=1)
    assert found["similarity"].dtype == found["threshold"].dtype == np.float32
    np.testing.assert_allclose(found["similarity"], expected, atol=1e-6)
    assert found["same"].tolist() == (expected >= SAME).tolist()
    assert {True, False} == set(found["same"].tolist())
    np.testing.assert_allclose(found["threshold"], [SAME] * 17, atol=1e-7)


def test_a_threshold_that_nothing_may_pass_refuses_even_one_image_twice(tmp_path, model):
    threshold = np.nextafter(1.0, 2.0)  # Which float32 does not tell from 1.
    path = servable.save_servable(
        model, tmp_path / "1", signatures=["verify"], verification_threshold=threshold
    )
    with session.SavedModelSession(path) as opened:
        found = opened.run({"images_a": IMAGES, "images_b": IMAGES}, signature="verify")
    assert found["similarity"].max() == 1 and not found["same"].any()


def _nearest(embeddings, gallery, k):
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = unit @ gallery.embeddings.T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(cosines, order, axis=1)


@pytest.mark.parametrize("name", ["search", "search_k", "search_image", "search_image_k"])
def test_searches_find_the_nearest_of_the_gallery(opened, model, gallery, name):
    embeddings = _embed(model, IMAGES) * 2
    inputs = {"images": IMAGES} if "image" in name else {"embeddings": embeddings}
    k = 4
    if name.endswith("_k"):
        k = 7
        inputs["k"] = np.int32(k)
    found = opened.run(inputs, signature=name)
    rows, cosines = _nearest(embeddings, gallery, k)
    assert found["scores"].dtype == np.float32
    np.testing.assert_allclose(found["scores"], cosines, atol=1e-6)
    assert [[i.decode() for i in row] for row in found["ids"]] == IDS[rows].tolist()
    assert found["unknown"].tolist() == (cosines[:, 0] < KNOWN).tolist()
    assert {True, False} == set(found["unknown"].tolist())
    np.testing.assert_allclose(found["threshold"], [KNOWN] * 17, atol=1e-7)


def test_search_by_files(opened):
    by_bytes = opened.run({"image_bytes": encoded(IMAGES[:3])}, signature="search_bytes")
    by_pixels = opened.run({"images": IMAGES[:3]}, signature="search_image")
    assert by_bytes["ids"].tolist() == by_pixels["ids"].tolist()


def test_whole_numbers_as_ids(tmp_path, model):
    gallery = galleries.Gallery(np.eye(6), np.arange(6) + 2**40)
    path = servable.save_servable(
        model, tmp_path / "1", signatures=["search"], gallery=gallery, k=1
    )
    with session.SavedModelSession(path) as opened:
        found = opened.run({"embeddings": np.eye(6, dtype=np.float32)}, signature="search")
    assert set(found) == {"ids", "scores"}  # No threshold, no decision.
    assert found["ids"].dtype == np.int64
    assert found["ids"][:, 0].tolist() == (np.arange(6) + 2**40).tolist()


def test_classify_adds_up_the_votes_of_the_nearest(opened, model, gallery):
    inputs = {"inputs": examples(encoded(IMAGES))}
    found = opened.run(inputs, signature="classify")
    assert found["classes"].shape == found["scores"].shape == (17, 3)
    rows, cosines = _nearest(_embed(model, IMAGES), gallery, 4)
    for row in range(17):
        votes = np.exp(signatures.VOTE_SCALE * cosines[row])
        votes /= votes.sum()
        by_class = {}
        for place, vote in zip(rows[row], votes, strict=True):
            by_class[CLASSES[place]] = by_class.get(CLASSES[place], 0) + vote
        answered = dict(zip(found["classes"][row], found["scores"][row], strict=True))
        answered = {name.decode(): score for name, score in answered.items() if name}
        assert answered == pytest.approx(by_class, abs=1e-5)
        assert found["scores"][row].tolist() == sorted(found["scores"][row], reverse=True)


def test_class_scores_are_cosines_to_the_class_weights(opened, model):
    found = opened.run({"images": IMAGES}, signature="class_scores")["scores"]
    np.testing.assert_allclose(found, _embed(model, IMAGES)[:, :5], atol=1e-6)


def test_the_score_of_a_class_is_that_of_its_nearest_sub_centre(model):
    weights = np.random.default_rng(4).normal(size=(5, 3, 6))
    parts = signatures.make_parts(
        model, (8, 8, 1), gallery=None, class_weights=weights, class_names=CLASS_NAMES, k=2
    )
    embeddings = _embed(model, IMAGES)
    unit = weights / np.linalg.norm(weights, axis=2, keepdims=True)
    expected = np.einsum("bd,csd->bcs", embeddings, unit).max(axis=2)
    scores = signatures._class_scores(parts, tf.constant(embeddings), {})["scores"]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    names = signatures._top_classes(parts, tf.constant(embeddings), {})["classes"].numpy()
    nearest = [CLASS_NAMES[place].encode() for place in expected.argmax(axis=1)]
    assert names[:, 0].tolist() == nearest


@pytest.mark.parametrize("name", ["top_classes", "top_classes_bytes"])
def test_top_classes_are_named_the_nearest_first(opened, model, name):
    inputs = {"images": IMAGES} if name == "top_classes" else {"image_bytes": encoded(IMAGES)}
    found = opened.run(inputs, signature=name)
    cosines = _embed(model, IMAGES)[:, :5]
    order = np.argsort(-cosines, axis=1)[:, :4]
    expected = [[CLASS_NAMES[place] for place in row] for row in order]
    assert [[value.decode() for value in row] for row in found["classes"]] == expected
    expected = np.take_along_axis(cosines, order, axis=1)
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)


NAN = np.full([2, 6], np.nan, np.float32)
ROWS = np.ones([2, 6], np.float32)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("serving_bytes", {"image_bytes": np.array([], object)}, "batch is empty"),
        ("serving_bytes", {"image_bytes": np.array([b"no image"])}, "Unknown image file format"),
        ("serving_bytes", {"image_bytes": np.array([b""], object)}, "[Ii]mage|input"),
        ("serving_bytes", {"image_bytes": np.array([b"BM"])}, "This BMP is cut off"),
        ("serving_bytes", {"image_bytes": encoded(IMAGES[:2])[:, None]}, "expected shape"),
        ("serving_bytes", {"image_bytes": IMAGES}, "expect string"),
        ("serving_examples", {"examples": np.array([b"\xff"])}, "Could not parse example"),
        ("serving_examples", {"examples": np.array([b""], object)}, "image/encoded"),
        ("similarity", {"images_a": IMAGES[:2], "images_b": IMAGES[:3]}, "equally many; found"),
        ("similarity", {"images_a": IMAGES[:0], "images_b": IMAGES[:0]}, "empty"),
        ("similarity", {"images_a": IMAGES[:2], "images_b": IMAGES[0]}, "expected shape"),
        ("verify", {"images_a": IMAGES[:2], "images_b": IMAGES[:3]}, "equally many; found"),
        (
            "verify_bytes",
            {"image_bytes_a": encoded(IMAGES[:2]), "image_bytes_b": encoded(IMAGES[:1])},
            "image_bytes_a and image_bytes_b must be equally many; found.*2 1",
        ),
        (
            "verify_bytes",
            {"image_bytes_a": encoded(IMAGES[:1]), "image_bytes_b": np.array([b"no image"])},
            "Unknown image file format",
        ),
        ("search", {"embeddings": ROWS[:0]}, "batch is empty"),
        ("search", {"embeddings": ROWS[:, :5]}, "expected shape"),
        ("search", {"embeddings": ROWS[0]}, "expected shape"),
        ("search", {"embeddings": NAN}, "finite"),
        ("search", {"embeddings": ROWS.astype(np.float64)}, "expect float"),
        ("search_k", {"embeddings": ROWS, "k": np.int32(0)}, "k must be 1 to 12.*found.*0"),
        ("search_k", {"embeddings": ROWS, "k": np.int32(13)}, "k must be 1 to 12"),
        ("search_k", {"embeddings": ROWS, "k": np.int32([3])}, "expected shape"),
        ("search_image", {"images": IMAGES[:0]}, "empty"),
        ("classify", {"inputs": np.array([b"\xff"])}, "Could not parse example"),
        ("class_scores", {"images": IMAGES[..., :0]}, "expected shape"),
    ],
)
def test_guards(opened, name, inputs, message):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"(?s){message}"):
        opened.run(inputs, signature=name)


@pytest.fixture(scope="module")
def limited(model, gallery, tmp_path_factory):
    path = servable.save_servable(
        model,
        tmp_path_factory.mktemp("base") / "1",
        signatures=signatures.NAMES,
        gallery=gallery,
        class_weights=np.eye(6),
        class_names=list("abcdef"),
        verification_threshold=SAME,
        max_batch_size=3,
        max_pixels=SHAPE[0] * SHAPE[1],
    )
    with session.SavedModelSession(path) as opened:
        yield opened


@pytest.mark.parametrize("name", signatures.NAMES)
def test_a_batch_that_is_too_large_is_refused(limited, name):
    for size in (3, 4):
        embeddings = np.ones([size, 6], np.float32)
        inputs = probes.good_inputs(name, IMAGES[:size], embeddings=embeddings)
        if size == 3:
            limited.run(inputs, signature=name)
            continue
        message = "too large: send at most (3|6) at a time; found"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            limited.run(inputs, signature=name)


@pytest.mark.parametrize("name", signatures.DECODE)
def test_a_file_of_too_many_pixels_is_refused_by_its_header(limited, name):
    contents = [encoded(IMAGES[:1])[0], encoded(np.zeros([1, 9, 8, 1]))[0][:40]]
    contents = np.array(contents, object)
    inputs = {"image_bytes": contents}
    if name == "verify_bytes":
        inputs = {"image_bytes_a": contents[:1], "image_bytes_b": contents[1:]}
    elif not name.endswith("_bytes"):
        inputs = {"inputs" if name == "classify" else "examples": examples(contents)}
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"at most 64 pixels; found\] \[72\]"):
        limited.run(inputs, signature=name)


def test_signatures_share_one_copy_and_are_reproducible(tmp_path, model, gallery):
    names = set(signatures.NAMES) - set(signatures.NEEDS_CLASS_WEIGHTS)
    paths = [
        servable.save_servable(
            model,
            tmp_path / str(n),
            signatures=names,
            gallery=gallery,
            verification_threshold=SAME,
            search_threshold=KNOWN,
        )
        for n in (1, 2)
    ]
    stored = tf.train.list_variables(f"{paths[0]}/variables/variables")
    assert len(stored) == len(model.weights) + 4 + 1  # Gallery, ids, classes; the object graph.
    first, again = (
        tf.saved_model.experimental.read_fingerprint(path).singleprint() for path in paths
    )
    assert first == again


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signatures": ["serch"]}, "Unknown signatures serch; there are serving_default"),
        ({"signatures": ["search"]}, "search need gallery="),
        ({"signatures": ["class_scores"]}, "need class_weights="),
        ({"signatures": ["top_classes"], "class_weights": np.eye(6)}, "need class_names="),
        ({"signatures": ["verify"]}, "verify need verification_threshold=, a cosine"),
        ({"verification_threshold": -1.1}, "verification_threshold must be a number of -1"),
        ({"search_threshold": float("nan")}, "search_threshold must be a number .*found nan"),
        ({"class_weights": np.eye(6), "class_names": ["a"]}, "class_weights, 6; found 1"),
        ({"class_names": ["a"]}, "class_weights, 0; found 1"),
        (
            {"signatures": ["classify"], "gallery": galleries.Gallery(np.eye(6), IDS[:6])},
            "a gallery with classes",
        ),
        (
            {"signatures": ["search"], "gallery": galleries.Gallery(np.eye(5), IDS[:5])},
            "5 dimensions, the model 6",
        ),
        (
            {"signatures": ["search"], "gallery": galleries.Gallery(np.eye(6), IDS[:6])},
            "k must be 1 to 6.*found 10",
        ),
        (
            {
                "signatures": ["search"],
                "gallery": galleries.Gallery(np.eye(6), IDS[:6], source="other"),
            },
            "embedded by another model",
        ),
        ({"max_batch_size": 0}, "max_batch_size must be a whole number of 1 or more; found 0"),
        ({"max_pixels": 1.5}, "max_pixels must be a whole number of 1 or more; found 1.5"),
        ({"weights": "int4"}, "weights must be one of float32, float16, bfloat16"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, model, options, message):
    with pytest.raises(ValueError, match=message):
        servable.save_servable(model, tmp_path / "base" / "1", **options)
    assert not (tmp_path / "base").exists()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_weights_take_half_the_room(tmp_path, dtype):
    model = saved_models.embedding_model(width=256)
    path = servable.save_servable(model, tmp_path / "1", weights=dtype)
    sizes = [
        np.prod(shape) * tf.train.load_variable(f"{path}/variables/variables", name).itemsize
        for name, shape in tf.train.list_variables(f"{path}/variables/variables")
        if "OBJECT_GRAPH" not in name
    ]
    weights = sum(weight.value.dtype.size * np.prod(weight.shape) for weight in model.weights)
    assert sum(sizes) < 0.52 * weights
    with session.SavedModelSession(path) as opened:
        found = opened.run({"images": IMAGES})["embeddings"]
    assert found.dtype == np.float32
    rounded = served_model(model, weights=dtype)
    np.testing.assert_allclose(found, _embed(rounded, IMAGES), atol=1e-6)
    assert np.sum(found * _embed(model, IMAGES), axis=1).min() > 0.999


def test_xla_compiles_the_model_alone(tmp_path, model):
    path = servable.save_servable(
        model, tmp_path / "1", signatures=["serving_bytes"], jit_compile=True
    )
    with session.SavedModelSession(path) as opened:
        found = opened.run({"images": IMAGES})["embeddings"]
        by_bytes = opened.run({"image_bytes": encoded(IMAGES)}, signature="serving_bytes")
        with pytest.raises(tf.errors.InvalidArgumentError, match="empty"):
            opened.run({"images": IMAGES[:0]})
    np.testing.assert_allclose(found, _embed(model, IMAGES), atol=1e-5)
    np.testing.assert_allclose(by_bytes["embeddings"], found, atol=1e-6)
