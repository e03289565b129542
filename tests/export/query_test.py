"""The command and its answers, against a real server whose model holds a gallery."""

import os

import numpy as np
import pytest
from PIL import Image

from circle_tf.serving import gallery as galleries
from circle_tf.serving import servable
from export import server
from export.cli import console
from export.client import answers, client
from export.verification import probes
from tests import processes, saved_models
from tests import serving_calls as calls

IMAGES = saved_models.IMAGES
CLASSES = np.array(["a", "b", "c"])
LABELS = np.arange(17) % 3


# Version: what it has beside the embeddings.
HAS = {1: {"gallery"}, 2: set(), 3: {"gallery", "classes", "thresholds"}, 4: {"classes"}}
SAME, KNOWN = 0.8, 0.92


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    """Four models: with and without the images as a gallery and names of classes."""
    folder = tmp_path_factory.mktemp("gallery") / "tiny"
    for version, has in HAS.items():
        model = saved_models.embedding_model(seed=version)
        embeddings = model.predict(IMAGES, verbose=0)
        ids = [f"{CLASSES[label]}/{row}" for row, label in enumerate(LABELS)]
        source = galleries.embedder_fingerprint(model)
        gallery = galleries.Gallery(embeddings, np.array(ids), CLASSES[LABELS], source)
        searches, classifies = (
            ["search_image", "search_bytes"],
            ["top_classes", "top_classes_bytes"],
        )
        servable.save_servable(
            model,
            folder / str(version),
            image_shape=saved_models.SHAPE,
            signatures=["serving_bytes", *searches * ("gallery" in has)]
            + classifies * ("classes" in has)
            + ["verify", "verify_bytes"] * ("thresholds" in has),
            verification_threshold=SAME if "thresholds" in has else None,
            search_threshold=KNOWN if "thresholds" in has else None,
            gallery=gallery if "gallery" in has else None,
            class_weights=embeddings[:3] if "classes" in has else None,
            class_names=CLASSES if "classes" in has else None,
            k=6,
        )
    return folder


@pytest.fixture(scope="module")
def started(base_path):
    config = server.for_model("tiny", str(base_path))
    policy = config.model_config_list.config[0].model_version_policy
    policy.specific.versions.extend(HAS)
    with server.Server(config) as running:
        for version in HAS:
            running.wait_until_available("tiny", version=version)
        yield running


@pytest.fixture
def served(started):
    with client.connect(
        f"127.0.0.1:{started.grpc_port}", model="tiny", version=1, timeout=calls.TIMEOUT
    ) as opened:
        yield opened


@pytest.fixture
def held_out(tmp_path):
    path = tmp_path / "held_out.npz"
    images = IMAGES.astype(np.uint8)
    np.savez(path, images=images, labels=LABELS, class_names=CLASSES)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for row in range(4):
        path = tmp_path / "photos" / CLASSES[LABELS[row]] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(probes.as_png(IMAGES[row]))
    return tmp_path / "photos"


def _nearest(base, row, k):
    """Rows nearest to another by the Python model."""
    embeddings = saved_models.embedding_model(seed=1).predict(base, verbose=0)
    return np.argsort(-(embeddings @ embeddings[row]))[1 : k + 1]


def test_held_out_examples_are_not_their_own_neighbours(served, held_out, tmp_path):
    asked = answers.queries([], held_out=held_out, count=3)
    assert asked.names == ["a/0", "c/8", "b/16"]
    found = answers.find(served, asked, k=4)
    for row, ids in zip((0, 8, 16), found.ids, strict=True):
        assert ids == [f"{CLASSES[LABELS[at]]}/{at}" for at in _nearest(IMAGES, row, 4)]
    lines = answers.table(asked, found)
    right = [ids[0][0] == name[0] for ids, name in zip(found.ids, asked.names, strict=True)]
    assert lines[-1] == f"The nearest is of the same class for {sum(right)} of 3."
    marks = [line for line in lines if line.endswith("same class")]
    expected = sum(i[0] == n[0] for ids, n in zip(found.ids, asked.names, strict=True) for i in ids)
    assert len(marks) == expected
    found.draw(tmp_path / "sheet.png", asked)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[0] > 5 * 112


def test_files_are_searched_in_the_gallery(served, folder, tmp_path):
    asked = answers.queries([str(folder), str(folder / "a" / "0.png")])
    assert [name.rpartition("/")[2] for name in asked.names] == [
        *("0.png", "3.png", "1.png", "2.png", "0.png")
    ]
    found = answers.find(served, asked, k=2)
    assert [ids[0] for ids in found.ids] == ["a/0", "a/3", "b/1", "c/2", "a/0"]
    assert all(abs(scores[0] - 1) < 1e-5 for scores in found.scores)


def test_a_model_without_a_gallery_is_told(started, folder):
    with client.connect(
        f"127.0.0.1:{started.grpc_port}", model="tiny", version=2, timeout=calls.TIMEOUT
    ) as served:
        with pytest.raises(console.ExportError, match="no signature search_bytes.*--gallery"):
            answers.find(served, answers.queries([str(folder)]), k=1)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("version", [3, 4])
def test_a_class_level_model_names_the_class(started, folder, held_out, protocol, version):
    ports = {"grpc": started.grpc_port, "rest": started.rest_port}
    target = f"{'http://' * (protocol == 'rest')}127.0.0.1:{ports[protocol]}"
    with client.connect(target, model="tiny", version=version, timeout=calls.TIMEOUT) as served:
        for asked in (
            answers.queries([str(folder / CLASSES[row] / f"{row}.png") for row in range(3)]),
            answers.queries([], held_out=held_out, count=1),
        ):
            found = answers.find(served, asked, k=2)
            assert [row[0][0] for row in found.classes] == list(CLASSES[: len(asked.names)])
            assert all(abs(row[0][1] - 1) < 1e-5 and len(row) == 2 for row in found.classes)
            assert [bool(ids) for ids in found.ids] == [version == 3] * len(asked.names)
            lines = answers.table(asked, found)
            assert lines[0].partition(": ")[0] == asked.names[0]
            assert lines[1] == "  class 1.0000  a"


@pytest.fixture(params=["grpc", "rest"])
def decides(request, started):
    """A client of the version with thresholds."""
    ports = {"grpc": started.grpc_port, "rest": started.rest_port}
    target = f"{'http://' * (request.param == 'rest')}127.0.0.1:{ports[request.param]}"
    with client.connect(target, model="tiny", version=3, timeout=calls.TIMEOUT) as opened:
        yield opened


def _cosines(left, right):
    embed = saved_models.embedding_model(seed=3)
    return np.sum(embed(left).numpy() * embed(right).numpy(), axis=1)


@pytest.mark.parametrize("kind", ["pixels", "files"])
def test_pairs_are_verified(decides, kind):
    left, right = IMAGES, IMAGES[::-1]
    cosines = _cosines(left, right)
    if kind == "files":
        left, right = ([probes.as_png(image) for image in side] for side in (left, right))
    similarity, same, threshold = decides.verify(left, right, batch_size=5)
    np.testing.assert_allclose(similarity, cosines, atol=1e-5)
    assert same.dtype == bool and same.tolist() == (cosines >= SAME).tolist()
    assert {True, False} == set(same.tolist())
    np.testing.assert_allclose(threshold, [SAME] * 17, atol=1e-7)


def test_of_pairs_the_bad_file_is_named(decides, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    good = [probes.as_png(image) for image in IMAGES[:3]]
    with pytest.raises(client.ServerError, match=r"bad\.png: .*nknown image file format"):
        decides.verify(good, [*good[:2], tmp_path / "bad.png"])


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (IMAGES[:2], IMAGES[:3], "as many images on both sides; found 2 and 3"),
        (["a.png"], IMAGES[:1], "Both sides of pairs must be files, or both pixels"),
    ],
)
def test_pairs_must_fit(served, left, right, message):
    with pytest.raises(console.ExportError, match=message):
        served.verify(left, right)


def test_who_is_like_nobody_is_unknown(decides):
    queries = IMAGES[:4].copy()
    queries[2:] = 0
    found = decides.search(queries, batch_size=3)
    ids, scores = found
    assert ids is found.ids and scores is found.scores
    assert found.unknown.tolist() == (scores[:, 0] < KNOWN).tolist() == [False, False, True, True]
    np.testing.assert_allclose(found.threshold, [KNOWN] * 4, atol=1e-7)


def test_decisions_stand_beside_the_scores(decides, held_out, folder, tmp_path):
    asked = answers.queries([], held_out=held_out, count=4)
    found = answers.find(decides, asked, k=3)
    known = [[score >= np.float32(KNOWN) for score in row] for row in found.scores]
    assert {True, False} == set(sum(known, []))
    lines = [line for line in answers.table(asked, found) if line[2:5].strip().isdigit()]
    assert [line.split()[2] == "known" for line in lines] == sum(known, [])
    told = answers.as_json(asked, found)
    assert [[one["known"] for one in row["neighbours"]] for row in told] == known
    assert [row["unknown"] for row in told] == [not any(row) for row in known]
    assert all(row["threshold"] == np.float32(KNOWN) for row in told)
    heads = [line for line in answers.table(asked, found) if line.startswith(tuple(asked.names))]
    said = [head.partition(": ")[2].partition(",")[0] for head in heads]
    assert said == ["known" if any(row) else "unknown" for row in known]
    if os.environ.get("SCREENSHOTS"):
        found.draw(f"{os.environ['SCREENSHOTS']}/sheet.png", asked)


def test_images_are_compared_with_one(decides, served, folder):
    paths = [str(folder / CLASSES[LABELS[row]] / f"{row}.png") for row in range(4)]
    found = answers.verify(decides, answers.queries(paths), paths[1])
    cosines = _cosines(IMAGES[:4], IMAGES[[1] * 4])
    np.testing.assert_allclose([one["similarity"] for one in found], cosines, atol=1e-5)
    assert [one["same"] for one in found] == (cosines >= SAME).tolist()
    assert [(one["a"], one["b"]) for one in found] == [(path, paths[1]) for path in paths]
    with pytest.raises(console.ExportError, match="There is no file 'none.png'"):
        answers.verify(decides, answers.queries(paths), "none.png")
    with pytest.raises(console.ExportError, match="published without a threshold.*evaluate"):
        answers.verify(served, answers.queries(paths), paths[1])


def test_a_version_without_thresholds_decides_nothing(served):
    found = served.search(IMAGES[:2])
    assert found.unknown is None and found.threshold is None
    with pytest.raises(client.ServerError, match="verify"):
        served.verify(IMAGES[:2], IMAGES[:2])


@pytest.mark.parametrize(
    ("images", "held", "message"),
    [
        (["none.png"], None, "There is no file or folder 'none.png'"),
        ([], b"no archive", "held_out.npz is broken .*train the run again"),
    ],
)
def test_queries_that_are_not_there(tmp_path, images, held, message):
    path = tmp_path / "held_out.npz"
    if held:
        path.write_bytes(held)
    with pytest.raises(console.ExportError, match=message):
        answers.queries(images, held_out=str(path) if held else None)


def _command(*options):
    return processes.run("-m", "export.query", "--model=tiny", *options)


# Slow: each starts four processes, of which two import TensorFlow.
@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_build_ask_and_be_refused(started, folder, tmp_path, protocol):
    ports = {"grpc": started.grpc_port, "rest": started.rest_port}
    target = f"{'http://' * (protocol == 'rest')}127.0.0.1:{ports[protocol]}"
    index, sheet = tmp_path / "index.npz", tmp_path / "sheet.png"
    options = [f"--target={target}", f"--index={index}"]
    done = _command(*options, "--version=1", f"--build={folder}", f"--image={folder}/a/0.png")
    assert (done.returncode, done.stderr) == (0, "")
    wrote, query, first, *_ = done.stdout.splitlines()
    assert wrote == f"Wrote 4 embeddings of 6 numbers to {index}."
    assert (query, first) == (f"{folder}/a/0.png", "    1   1.0000  a/0.png")
    done = _command(*options, "--version=1", f"--image={folder}", "--k=3", f"--sheet={sheet}")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 4 * 4 + 1
    with Image.open(sheet) as drawn:
        assert drawn.size[1] > 4 * 112
    done = _command(*options, "--version=2", f"--image={folder}")
    assert done.returncode == 1 and "error: The index was made by another model" in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "error: Give --image=FILE_OR_FOLDER or --held_out=FILE to ask, or --build"),
        (["--image=a", "--held_out=b"], "error: Give either --image or --held_out"),
        (["--same_as=a", "--held_out=b"], "error: --same_as=FILE needs --image"),
        (["--image=a", "--same_as=a", "--sheet=s.png"], "without --index, --build and --sheet"),
        (["--build=a", "--json"], "error: --json is for answers"),
        (["--build=a"], "error: --build=FOLDER needs --index=FILE to write to"),
        (["--target=http://127.0.0.1:1", "--image=none"], "error: There is no file or folder"),
    ],
)
def test_errors_are_for_people(options, message):
    done = _command(*options)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
