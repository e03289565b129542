"""The page in a real browser: Debian's Chromium, headless, without a network of its own."""

import base64
import json
import os
import shutil

import numpy as np
import pytest
import requests
import tensorflow as tf
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from circle_tf.serving import gallery as galleries
from circle_tf.serving import servable
from export import server
from export.saved_model import pictures
from export.server import config as configs
from tests import saved_models
from tests import serving_calls as calls

NAMES = ["<b>zero</b>", "eins", "ἕν"]
IDS = [f"class {row % 3}/{row}" for row in range(8)]
CLASSES = [f"<i>{row % 3}</i>" for row in range(8)]
KNOWN = 0.9
_DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
if (bytes.length) data.items.add(new File([bytes], "query.png"));
const type = arguments[1];
document.getElementById("drop").dispatchEvent(type === "paste"
  ? new ClipboardEvent(type, { clipboardData: data, bubbles: true })
  : new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true }));
"""


_SIGNATURES = ("search_bytes", "top_classes_bytes", "search_bytes")


def _jpeg(row):
    return tf.io.encode_jpeg(saved_models.IMAGES[row].astype(np.uint8), quality=95).numpy()


def _png(row):
    return tf.io.encode_png(saved_models.IMAGES[row].astype(np.uint8)).numpy()


def _config(folder):
    """Models with a gallery, with nothing, with names of classes, and with both."""
    model = saved_models.embedding_model()
    embeddings = model(saved_models.IMAGES[: len(IDS)]).numpy()
    source = galleries.embedder_fingerprint(model)
    gallery = galleries.Gallery(embeddings, IDS, source=source)
    thumbnails = [_jpeg(row) for row in range(7)] + [b""]  # Of the last there was no room.
    pictured = galleries.Gallery(embeddings, IDS, CLASSES, source, thumbnails)
    found = {"gallery": gallery}, {"class_weights": embeddings[:3], "class_names": NAMES}
    found = *found, {"gallery": pictured, "search_threshold": KNOWN}
    parts = {"glyphs": [0], "plain": [], "named": [1], "named-both": [0, 1], "pictured": [2]}
    served = configs.for_model("glyphs", f"{folder}/glyphs")
    for name, numbers in parts.items():
        servable.save_servable(
            model,
            f"{folder}/{name}/3",
            signatures=[_SIGNATURES[number] for number in numbers],
            k=5,
            **{key: value for number in numbers for key, value in found[number].items()},
        )
        if name == "pictured":
            pictures.write(f"{folder}/{name}/3", pictured)
        if name != "glyphs":
            served.model_config_list.config.add(
                name=name, base_path=f"{folder}/{name}", model_platform="tensorflow"
            )
    return served


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return _config(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def started(config):
    with server.Server(config, ui=True, limits=server.Limits(max_bytes=1 << 20)) as opened:
        for name in opened.models():
            opened.wait_until_available(name)
        yield opened


@pytest.fixture(scope="module")
def browser():
    """Chromium; a newcomer may do without, CI may not."""
    paths = shutil.which("chromium"), shutil.which("chromedriver")
    if not all(paths):
        reason = "the page is tested with Debian's packages chromium and chromium-driver"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{flag}")
    options.add_argument("--disable-background-networking")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, started):
    """The page, freshly loaded; at the end nothing was asked of other hosts."""
    browser.get_log("performance")
    browser.get_log("browser")
    _open(browser, started)
    yield browser
    own = (calls.url(started), "data:", "blob:")
    asked = [url for url in _requested(browser) if not url.startswith(own)]
    assert not asked


def _open(browser, started):
    browser.get(calls.url(started, "/"))
    _wait(browser, lambda: "3" in [o.text for o in _select(browser, "version").options])


def _requested(browser):
    entries = (json.loads(entry["message"]) for entry in browser.get_log("performance"))
    sent = (e["message"] for e in entries if e["message"]["method"] == "Network.requestWillBeSent")
    return [message["params"]["request"]["url"] for message in sent]


def _select(browser, name):
    return Select(browser.find_element(By.ID, name))


def _wait(browser, condition):
    return WebDriverWait(browser, calls.TIMEOUT).until(lambda _: condition())


def _status(browser, part):
    _wait(browser, lambda: part in browser.find_element(By.ID, "status").text)


def _send(browser, data, kind="drop"):
    browser.execute_script(_DROP, base64.b64encode(data).decode(), kind)


def _found(browser):
    rows = browser.find_elements(By.CSS_SELECTOR, "#results li")
    cells = [[row.find_element(By.CLASS_NAME, c).text for c in ("id", "score")] for row in rows]
    return [name for name, _ in cells], [float(score) for _, score in cells]


def _errors(browser):
    return [
        entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
    ]


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_finds_itself(page, kind):
    _send(page, _png(4), kind)
    _status(page, "5 nearest by glyphs, version 3.")
    ids, scores = _found(page)
    assert (len(ids), ids[0], scores[0]) == (5, IDS[4], 1.0)
    assert scores == sorted(scores, reverse=True)
    assert _errors(page) == []


def test_by_keyboard_alone(page, tmp_path):
    reached = []
    for _ in range(3):
        webdriver.ActionChains(page).send_keys(Keys.TAB).perform()
        reached.append(page.switch_to.active_element)
    assert [element.get_attribute("id") for element in reached] == ["model", "version", "file"]
    assert all(element.accessible_name for element in reached)
    (tmp_path / "query.png").write_bytes(_png(6))
    reached[-1].send_keys(str(tmp_path / "query.png"))
    _status(page, "5 nearest")
    assert _found(page)[0][0] == IDS[6]
    reached[1].send_keys("3")
    _status(page, "5 nearest by glyphs, version 3.")
    assert page.find_element(By.ID, "preview").get_attribute("alt") == "The query: query.png"
    assert _errors(page) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image", "read. It takes JPEG, PNG, GIF, BMP, WebP and JPEG XL."),
        (b"\x89PNG\r\n\x1a\n cut off", "That is not an image the model can read."),
        (b"", "That holds no image."),
        (b"x" * (1 << 20), "The image is larger than the server takes."),
    ],
    ids=["text", "cut off", "nothing", "large"],
)
def test_what_is_no_image_is_told_in_words(page, data, message):
    _send(page, data)
    _status(page, message)
    assert _found(page) == ([], [])


def test_a_model_without_a_gallery_is_told_in_words(page):
    _send(page, _png(0))
    _status(page, "5 nearest")
    _select(page, "model").select_by_visible_text("plain")
    _status(page, "plain, version 3, has no gallery to search in.")
    assert _found(page) == ([], [])


def test_the_class_is_named(page):
    _send(page, _png(2))
    _status(page, "5 nearest by glyphs")
    _select(page, "model").select_by_visible_text("named")
    _status(page, "3 nearest classes by named, version 3.")
    names, scores = _found(page)
    assert sorted(names) == sorted(NAMES) and (names[0], scores[0]) == (NAMES[2], 1.0)
    _select(page, "model").select_by_visible_text("named-both")
    _status(page, f"Class {NAMES[2]} (1.0000). 5 nearest by named-both, version 3.")
    assert _found(page)[0][0] == IDS[2]
    assert _errors(page) == []


def _seen(browser, name):
    return [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, f"#results .{name}")]


def test_pictures_classes_and_decisions_stand_beside_the_scores(page):
    _select(page, "model").select_by_visible_text("pictured")
    _send(page, _png(4))
    _status(page, f"Known, from {KNOWN:.4f} on. 5 nearest by pictured, version 3.")
    ids, scores = _found(page)
    rows = [IDS.index(name) for name in ids]
    assert _seen(page, "class") == [f"class {CLASSES[row]}" for row in rows]
    expected = ["known" if score >= KNOWN else "unknown" for score in scores]
    assert _seen(page, "answer span:last-child") == expected and "known" in expected
    images = page.find_elements(By.CSS_SELECTOR, "#results img")
    shown = [row for row in rows if row != 7]
    assert [image.get_attribute("alt") for image in images] == [IDS[row] for row in shown]
    assert [image.get_attribute("src") for image in images] == [
        f"data:image/jpeg;base64,{base64.b64encode(_jpeg(row)).decode()}" for row in shown
    ]
    width = "return [...document.querySelectorAll('#results img')].map((i) => i.naturalWidth)"
    _wait(page, lambda: page.execute_script(width) == [8] * len(shown))
    assert _errors(page) == []


def test_whom_nobody_is_like_is_unknown(page):
    _select(page, "model").select_by_visible_text("pictured")
    _send(page, tf.io.encode_png(np.zeros([8, 8, 1], np.uint8)).numpy())
    _status(page, f"Unknown: nothing from {KNOWN:.4f} on. 5 nearest by pictured")
    assert _seen(page, "unknown") == ["unknown"] * 5
    _select(page, "model").select_by_visible_text("glyphs")
    _status(page, "5 nearest by glyphs")
    assert page.find_element(By.ID, "status").text.startswith("5 nearest")  # No threshold.
    assert not _seen(page, "unknown") and not page.find_elements(By.CSS_SELECTOR, "#results img")


def test_only_what_was_asked_for_of_versions_that_are_served(started):
    found = calls.get(started, f"/ui/gallery/pictured/3?id={IDS[1]}&id=none&id={IDS[7]}").json()
    assert [sorted(one) for one in found] == [["class", "thumbnail"], [], ["class"]]
    assert calls.get(started, "/ui/gallery/glyphs/3?id=a").json() == [{}]
    assert calls.get(started, "/ui/gallery/pictured/3").json() == []
    for path in ("pictured/4", "none/3", "..%2Fpictured/3", f"pictured/{2**70}"):
        assert calls.get(started, f"/ui/gallery/{path}?id=a").status_code == 404


def test_a_server_that_is_gone_is_told_in_words(config, browser):
    with server.Server(config, ui=True) as ended:
        ended.wait_until_available("glyphs")
        _open(browser, ended)
    _send(browser, _png(0))
    _status(browser, "The server does not answer. Is it still running?")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_at_any_width(page, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    _select(page, "model").select_by_visible_text("pictured")
    _send(page, _png(2))
    _status(page, "5 nearest")
    assert page.execute_script("return document.documentElement.scrollWidth") == width
    if os.environ.get("SCREENSHOTS"):
        page.save_screenshot(f"{os.environ['SCREENSHOTS']}/page-{width}.png")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_page_forbids_itself_other_hosts(started):
    for path in ("/", "/ui/page.js", "/ui/page.css", "/ui/models"):
        response = requests.get(calls.url(started, path), timeout=calls.TIMEOUT)
        assert response.ok
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "http" not in policy
    assert calls.get(started, "/ui/models").json() == [
        *("glyphs", "named", "named-both", "pictured", "plain")
    ]
    assert calls.get(started, "/ui/../server.py").status_code == 404


@pytest.fixture(scope="module")
def named(models_folder):
    config = configs.for_model("tiny", f"{models_folder}/tiny")
    with server.Server(config, ui=True, ui_hosts=["Box.example"]) as opened:
        opened.wait_until_available("tiny")
        yield opened


PATHS = ["/", "/ui/models", "/v1/models/tiny", "/monitoring/prometheus/metrics", "/none"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:1", "localhost.", "", "["]
)
def test_foreign_names_are_refused(named, path, host):
    response = requests.get(calls.url(named, path), headers={"Host": host}, timeout=calls.TIMEOUT)
    assert response.status_code == 400
    assert f"does not go by the name {host!r}: start it with --ui_hosts" in response.json()["error"]


@pytest.mark.parametrize("path", PATHS[:4])
@pytest.mark.parametrize(
    "host", ["localhost:1", "LOCALHOST", "127.0.0.1:80", "192.168.0.7", "[::1]:8501", "box.example"]
)
def test_own_names_and_addresses_are_answered(named, path, host):
    response = requests.get(calls.url(named, path), headers={"Host": host}, timeout=calls.TIMEOUT)
    assert response.ok


def test_without_the_page_the_name_does_not_matter(models_folder):
    with server.Server(configs.for_model("tiny", f"{models_folder}/tiny")) as opened:
        opened.wait_until_available("tiny")
        url = calls.url(opened, "/v1/models/tiny")
        assert requests.get(url, headers={"Host": "any.example"}, timeout=calls.TIMEOUT).ok
