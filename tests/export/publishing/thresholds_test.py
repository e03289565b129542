"""Which of the measured thresholds are published, and what is said about them."""

import dataclasses
import json

import numpy as np
import pytest

from circle_tf.evaluation.calibration import Calibration, Threshold
from export.cli import console, runs
from export.publishing import gallery_sources, manifest, publisher, thresholds
from export.saved_model import pictures
from export.saved_model.contents import Contents
from tests import saved_models


def _threshold(rate, value, *, reliable):
    ends = (value - 0.01, value + 0.01)
    return Threshold(rate, value, ends, rate, (0.0, 2 * rate), 0.9, (0.8, 1.0), 40.0, reliable)


MEASURED = Calibration(
    [_threshold(0.001, 0.8, reliable=False), _threshold(0.01, 0.6, reliable=True)]
    + [_threshold(0.1, 0.4, reliable=True)],
    [_threshold(0.001, 0.9, reliable=False), _threshold(0.01, 0.7, reliable=False)]
    + [_threshold(0.1, 0.5, reliable=True)],
    confidence=0.95,
    counts={},
).as_dict()
FEW = {  # All of too few examples.
    name: [one | {"reliable": False} for one in MEASURED[name]] for name in thresholds.DECISIONS
}
REFUSED = {"not_measured": "calibrate needs two classes or more"}


@dataclasses.dataclass(frozen=True)
class Run:
    """A run with these thresholds."""

    found: dict | None
    workdir: str = "runs/a"
    best: bool = True

    def decision(self):
        return self.found


@pytest.mark.parametrize(
    ("found", "rate", "expected"),
    [
        (MEASURED, None, {"verification": 0.01, "search": 0.1}),
        (MEASURED, 0.1, {"verification": 0.1, "search": 0.1}),
        (MEASURED, 0.001, {"verification": 0.001, "search": 0.001}),
        (FEW, None, {}),
        (FEW, 0.01, {"verification": 0.01, "search": 0.01}),
        (REFUSED, None, {}),
        (None, None, {}),
    ],
    ids=["lowest reliable", "asked", "unreliable", "none", "few", "not measured", "not evaluated"],
)
def test_which_are_chosen(found, rate, expected):
    chosen = thresholds.choose(Run(found), rate=rate)
    assert {name: one["false_accept_rate"] for name, one in chosen.items()} == expected
    for name, one in chosen.items():
        (measured,) = [t for t in found[name] if t["false_accept_rate"] == expected[name]]
        assert one["threshold"] == np.float32(one["threshold"])
        assert 0 <= one["threshold"] - measured["threshold"] < 1e-7
        assert one | {"threshold": measured["threshold"]} == measured


AGAIN = "python -m trainers.evaluate --workdir=runs/a --best"


@pytest.mark.parametrize(
    ("found", "options", "message"),
    [
        (MEASURED, {"rate": 0.05}, "0.05 was not measured, 0.001, 0.01, 0.1 were.*_rates=0.05"),
        (None, {"rate": 0.01}, f"no thresholds were measured.*{AGAIN} --false_accept_rates=0.01"),
        (REFUSED, {"rate": 0.01}, r"measured for this model .calibrate needs two classes or more"),
        (FEW, {"signatures": ["verify"]}, "--signatures=verify: .*too few .*know 0.001, 0.01, 0.1"),
        (None, {"signatures": ["verify"]}, f"none was measured. {AGAIN} measures them"),
    ],
)
def test_what_cannot_be_chosen_is_refused(found, options, message):
    with pytest.raises(console.ExportError, match=message):
        thresholds.choose(Run(found), **options)


def _summary(found, chosen, *, gallery=None):
    content = {"thresholds": chosen, "decision": found, "gallery": gallery}
    return "\n".join(thresholds.summary(content, run=Run(found)))


def test_what_is_published_is_said():
    said = _summary(MEASURED, thresholds.choose(Run(MEASURED)), gallery={"rows": 3})
    assert said.splitlines() == [
        "verification     the same from 0.6000 (0.5900 to 0.6100), at a false-accept rate of 0.01",
        "search           unknown below 0.5000 (0.4900 to 0.5100), at a false-accept rate of 0.1",
    ]
    said = _summary(MEASURED, thresholds.choose(Run(MEASURED), rate=0.001))
    assert said.endswith("a false-accept rate of 0.001; too few examples to know the rate")
    said = _summary(FEW, {}, gallery={"rows": 3})
    assert said.count("too few examples to know 0.001, 0.01, 0.1; --false_accept_rate takes") == 2
    assert _summary(None, {}).endswith(f"{AGAIN} finds them")
    assert _summary(REFUSED, {}).endswith("no threshold: calibrate needs two classes or more")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    workdir = saved_models.finished_run(folder / "run")
    images = saved_models.IMAGES.astype(np.uint8)
    names = np.array(["a", "b", "c"])
    np.savez(workdir / "held_out.npz", images=images, labels=np.arange(17) % 3, class_names=names)
    evaluated = {"decision": MEASURED, "model": {"file": "model.keras", "step": 7}}
    (workdir / "evaluation.json").write_text(json.dumps(evaluated))
    return runs.read(str(workdir))


# Slow: it starts a process that imports TensorFlow.
@pytest.mark.slow
def test_with_a_gallery_that_was_made_later_they_are_verified_and_written(tmp_path, run):
    gallery = str(tmp_path / "gallery.npz")  # As export.gallery writes it.
    model = runs.load_model(run.workdir)
    gallery_sources.from_held_out(run, model=model, thumbnails=8).save(gallery)
    names = ("verify", "verify_bytes", "search", "search_image_k")
    published = publisher.publish(
        run,
        base_path=str(tmp_path / "tiny"),
        options=publisher.Options(gallery=gallery, k=3, signatures=names),
        tell=lambda line: None,
    )
    with open(f"{published.path}/{manifest.PATH}") as file:
        written = json.load(file)
    found = {name: one["threshold"] for name, one in written["thresholds"].items()}
    assert found == pytest.approx({"verification": 0.6, "search": 0.5}, abs=1e-7)
    assert written["gallery"]["thumbnails"] == 17
    shown = pictures.Pictures(published.path).of("b/1")
    assert shown["class"] == "b" and shown["thumbnail"].startswith("data:image/jpeg;base64,")
    assert written["decision"] == json.loads(json.dumps(MEASURED))
    assert set(names) <= set(written["verified"])
    assert "same [17]" in written["verified"]["verify_bytes"]
    assert "unknown [17]" in written["verified"]["search"]
    again = Contents.read(published.path)
    assert found == {
        "verification": again.verification_threshold,
        "search": again.search_threshold,
    }
