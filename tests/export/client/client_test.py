"""The client against the served models by both protocols, and against servers that fail."""

import concurrent.futures
import contextlib
import http.server
import pathlib
import random
import threading
import time

import grpc
import numpy as np
import pytest
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from export import client
from export.cli import console
from export.verification import probes
from tests import processes, saved_models, served_models

IMAGES = saved_models.IMAGES


@pytest.fixture(params=["grpc", "rest"])
def address(request, target):
    return target.rest if request.param == "rest" else target.grpc


@pytest.fixture
def served(address):
    with client.connect(address, model="tiny") as opened:
        yield opened


@pytest.fixture
def files(tmp_path):
    paths = []
    for number in range(5):
        paths.append(str(tmp_path / f"{number}.png"))
        (tmp_path / f"{number}.png").write_bytes(probes.as_png(IMAGES[number]))
    return paths


def test_pixels_and_files_embed_as_the_model_does(served, files):
    expected = served_models.embedded(IMAGES, shift=2)
    found = served.embed(IMAGES, batch_size=4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(served.embed(files, batch_size=2), expected[:5], atol=1e-5)


@pytest.mark.parametrize(
    ("which", "shift"), [({"version": 1}, 1), ({"label": "stable"}, 1), ({"label": "canary"}, 2)]
)
def test_versions_and_labels(address, which, shift):
    with client.connect(address, model="tiny", **which) as served:
        found = served.embed(IMAGES[:2])
    np.testing.assert_allclose(found, served_models.embedded(IMAGES[:2], shift=shift), atol=1e-5)


def test_all_types_go_there_and_back(served):
    inputs = {
        "numbers": np.array([1, 2**40, -3]),
        "names": np.array([b"a", "é".encode(), b""], object),
        "flags": np.array([True, False, True]),
    }
    outputs = served.predict(inputs, signature="types").outputs
    np.testing.assert_array_equal(outputs["doubled"], [2, 2**41, -6])
    assert outputs["names"].tolist() == [b"a!", "é!".encode(), b"!"]
    assert outputs["names_bytes"].tolist() == inputs["names"].tolist()
    np.testing.assert_array_equal(outputs["negated"], [False, True, False])
    np.testing.assert_allclose(outputs["halves"], [0.5, 2**39, -1.5])


def test_numbers_that_are_none_go_there_and_back(served):
    images = np.full([1, *saved_models.SHAPE], np.nan, np.float32)
    assert np.isnan(served.predict({"images": images}).outputs["embeddings"]).all()


def test_signatures_and_versions_are_told(served, address):
    assert served.signatures()["serving_default"] == {"images": (-1, *saved_models.SHAPE)}
    version = served.predict({"images": IMAGES[:1]}).version
    assert version == (None if client.is_rest(address) else 2)


def test_the_bad_file_of_a_batch_is_named(served, files, tmp_path):
    (tmp_path / "3.png").write_bytes(b"no image")
    with pytest.raises(client.ServerError, match=r"3\.png: .*nknown image file format") as caught:
        served.embed(files)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_what_is_not_there_is_said(address):
    with client.connect(address, model="none") as served:
        with pytest.raises(client.ServerError, match=r"NOT_FOUND: .*none"):
            served.embed(IMAGES)


@pytest.mark.parametrize("given", [[], (), iter([]), np.zeros([0, 8, 8, 1]), np.array([], str)])
def test_nothing_to_ask_about(served, given):
    with pytest.raises(console.ExportError, match="There are no images to ask about"):
        served.embed(given)


def _pil(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_images_are_given_in_many_ways(served, files):
    expected = served_models.embedded(IMAGES[:5], shift=2)
    contents = [pathlib.Path(path).read_bytes() for path in files]
    for given in (
        tuple(files),
        iter(files),
        np.array(files),
        np.array(files, object),
        [pathlib.Path(path) for path in files],
        contents,
        [_pil(path) for path in files],
        [files[0], pathlib.Path(files[1]), contents[2], bytearray(contents[3]), _pil(files[4])],
        IMAGES[:5].astype(np.uint8),
        IMAGES[:5].astype(np.float64),
        list(IMAGES[:5]),
        IMAGES[:5].tolist(),
    ):
        np.testing.assert_allclose(served.embed(given, batch_size=3), expected, atol=1e-5)
    for given in (files[0], pathlib.Path(files[0]), contents[0], _pil(files[0])):
        np.testing.assert_allclose(served.embed(given), expected[:1], atol=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "Images must be given as a list, each a path, .*; found NoneType"),
        (7, "given as a list, each a path, .*; found int"),
        (np.array("a.png"), "given as a list, each a path, .*; found ndarray"),
        ([None], "Images must be a path, the bytes of a file, .*; found object"),
        (["a.png", None], "Files and pixels cannot be mixed; found NoneType beside files"),
        (IMAGES[0], r"\[N, H, W, C\]; found shape \[8, 8, 1\]. One image alone is image\[None\]"),
        ([IMAGES[0, ..., 0]], r"\[N, H, W, C\]; found shape \[1, 8, 8\]. One"),
        ([IMAGES[0], IMAGES[0, 1:]], r"of one size; found \[7, 8, 1\], \[8, 8, 1\]. Send files"),
        (IMAGES > 9, "Images must be .* 0..255; found bool"),
        (IMAGES + 1j, "Images must be .* 0..255; found complex64"),
    ],
)
def test_what_is_no_image_is_told_before_it_is_sent(given, message):
    with client.connect("http://127.0.0.1:1", model="m") as served:
        with pytest.raises(console.ExportError, match=message) as caught:
            served.search(given)
    assert "\n" not in str(caught.value)


def test_the_bad_image_of_a_batch_is_counted(served, files):
    with pytest.raises(client.ServerError, match=r"^INVALID_ARGUMENT: image 3: .*nknown image"):
        served.embed([*files[:3], b"no image", *files[3:]], batch_size=2)


def test_zeros_at_the_end_of_bytes_are_kept(served):
    inputs = {"numbers": np.int64([1]), "names": [b"a\0"], "flags": [True]}
    found = served.predict(inputs, signature="types").outputs["names_bytes"]
    assert found.tolist() == [b"a\0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": 1, "label": "a"}, "Give a version or a label, not both; found 1 and 'a'"),
        ({"timeout": 0}, "timeout must be above 0"),
        ({"attempts": 0}, "attempts 1 or more; found 10.0 and 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(console.ExportError, match=message):
        client.connect("localhost:1", model="m", **options)


class _Failing(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Fails the first `times` calls; then answers, after `pause` seconds."""

    def __init__(self, code, *, times, pause=0):
        self._code, self._times, self._pause = code, times, pause
        self.calls = 0

    def next(self):
        """The status of this call."""
        self.calls += 1
        time.sleep(self._pause)
        return self._code if self.calls <= self._times else grpc.StatusCode.OK

    def Predict(self, request, context):
        if (code := self.next()) != grpc.StatusCode.OK:
            context.abort(code, "on purpose")
        response = predict_pb2.PredictResponse()
        response.outputs["embeddings"].CopyFrom(request.inputs["images"])
        return response


_HTTP = {"UNAVAILABLE": 503, "INVALID_ARGUMENT": 400, "RESOURCE_EXHAUSTED": 429, "OK": 200}


@contextlib.contextmanager
def _over_grpc(failing):
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(failing, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@contextlib.contextmanager
def _over_rest(failing):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            code = failing.next().name
            body = (
                b'{"outputs": {"embeddings": [[1.0, 2.0]]}}'
                if code == "OK"
                else b'{"error": "on purpose"}'
            )
            self.send_response(_HTTP[code])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):
                self.wfile.write(body)

        def log_message(self, *args):
            del args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(params=[_over_grpc, _over_rest])
def over(request):
    return request.param


ROW = np.array([[[[1.0, 2.0]]]], np.float32)


def test_unavailable_is_tried_again(over):
    failing = _Failing(grpc.StatusCode.UNAVAILABLE, times=2)
    with over(failing) as address, client.connect(address, model="m") as served:
        np.testing.assert_array_equal(served.embed(ROW).ravel(), ROW.ravel())
    assert failing.calls == 3


@pytest.mark.parametrize(
    ("code", "calls"), [("UNAVAILABLE", 2), ("INVALID_ARGUMENT", 1), ("RESOURCE_EXHAUSTED", 1)]
)
def test_no_other_error_is_and_not_for_ever(over, code, calls):
    failing = _Failing(grpc.StatusCode[code], times=9)
    with over(failing) as address, client.connect(address, model="m", attempts=2) as served:
        with pytest.raises(client.ServerError, match=code):
            served.embed(ROW)
    assert failing.calls == calls


def test_pauses_are_random_and_grow(monkeypatch):
    paused, spans = [], []
    monkeypatch.setattr(time, "sleep", paused.append)
    monkeypatch.setattr(random, "uniform", lambda low, high: spans.append((low, high)) or low)
    with client.connect("http://127.0.0.1:1", model="m", attempts=4) as served:
        with pytest.raises(client.ServerError, match="cannot be reached"):
            served.embed(ROW)
    assert spans == [(0, 0.2), (0, 0.4), (0, 0.8), (0, 1.6)]
    assert paused == [0, 0, 0]


def test_deadlines(over):
    failing = _Failing(grpc.StatusCode.OK, times=0, pause=0.5)
    with over(failing) as address, client.connect(address, model="m", timeout=0.05) as served:
        with pytest.raises(client.ServerError, match=r"DEADLINE_EXCEEDED: no answer from .* in ti"):
            served.embed(ROW)
    assert failing.calls == 1


@pytest.mark.parametrize("address", ["127.0.0.1:1", "http://127.0.0.1:1"])
def test_nobody_listens(address):
    with client.connect(address, model="m", attempts=1) as served:
        with pytest.raises(client.ServerError, match=r"UNAVAILABLE: .* cannot be reached .*efused"):
            served.embed(ROW)


# Starts a process that imports TensorFlow.
@pytest.mark.slow
def test_it_needs_no_model_code_and_rest_no_tensorflow():
    code = (
        "import sys, export.client, export.client.answers, export.query\n"
        "assert 'tensorflow' not in sys.modules\n"
        "export.client.connect('http://localhost:1', model='m')\n"
        "assert 'tensorflow' not in sys.modules\n"
        "export.client.connect('localhost:1', model='m')\n"
        "assert 'tensorflow' in sys.modules and 'circle_tf.layers' not in sys.modules"
    )
    done = processes.run("-c", code)
    assert done.returncode == 0, done.stderr
