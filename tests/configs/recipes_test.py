"""The recipes of the paper's experiments: what they claim, and two steps of each on tiny copies."""

import importlib
import json
import os

import pytest

from tests import layouts
from tests.combinations import quick
from trainers import data
from trainers.outputs import artifacts
from trainers.training import loop

PAPER = {  # Recipe: loss, margin, gamma, embedding, as the paper states them.
    "cub200": ("circle", 0.4, 80, 512),
    "cars196": ("circle", 0.4, 80, 512),
    "sop": ("circle", 0.4, 80, 512),
    "inshop": ("circle", 0.4, 80, 512),
    "market1501": ("class_circle", 0.25, 128, 512),
    "msmt17": ("class_circle", 0.25, 128, 512),
    "face_r34": ("class_circle", 0.25, 256, 512),
    "face_r100": ("class_circle", 0.25, 256, 512),
}
# Their own nets take long to build; these stand for keras.applications and for ours.
OWN_NET = ("cub200", "market1501", "face_r34")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def _recipe(name):
    return importlib.import_module(f"configs.{name}").get_config()


@pytest.mark.parametrize("name", PAPER)
def test_settings_are_the_papers(name):
    config = _recipe(name)
    loss = config.loss
    found = (loss.name, loss.margin, loss.gamma, config.model.embedding_dim)
    assert found == PAPER[name]
    if loss.name == "circle":
        assert (config.batch.classes_per_batch, config.batch.examples_per_class) == (16, 5)
    if name.startswith("face"):
        assert (config.steps, config.optimizer.schedule) == (182_000, "steps")


@pytest.mark.parametrize("name", PAPER)
def test_docstrings_are_honest(name):
    text = " ".join(importlib.import_module(f"configs.{name}").__doc__.split())
    for words in ("Paper (Sun et al., CVPR 2020)", "Not run here.", "Our choice", "Cost:"):
        assert words in text


def _data(name, folder):
    """A tiny copy; of faces shards with four people."""
    if not name.startswith("face"):
        layouts.WRITERS[name](folder)
        return str(folder)
    layouts.lfw(folder)
    for person in ("Di", "Eve", "Fay"):
        os.makedirs(folder / "lfw" / person)
        for number in (1, 2):
            content = layouts.picture("jpeg", size=(20, 24), seed=number)
            (folder / "lfw" / person / f"{number}.jpg").write_bytes(content)
    data.convert(str(folder / "lfw"), output=str(folder / "shards"))
    return str(folder / "shards")


# Slow but for one of each loss: seconds each, half a minute with the recipe's own net.
@pytest.mark.parametrize("name", quick(PAPER, among=["inshop", "msmt17"]))
def test_two_steps(name, tmp_path, monkeypatch):
    # Figures are made and not rendered; loop_test.py looks at them.
    monkeypatch.setattr(artifacts, "_write", lambda figures, **_: None)
    config = _recipe(name)
    config.dataset.path = _data(name, tmp_path / "data")
    config.dataset.image_size = 64 if config.dataset.image_width else 32
    config.dataset.image_width //= 4
    config.dataset.test_fraction = 0.4
    if name not in OWN_NET:
        config.model.backbone = "conv4"
    config.batch.classes_per_batch = config.batch.examples_per_class = 2
    config.steps = config.eval_every = config.checkpoint_every = 2
    config.optimizer.warmup_steps = min(1, config.optimizer.warmup_steps)
    config.strategy, config.precision = "single", "float32"
    loop.train(config, workdir=str(tmp_path / "run"), config_name=name)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["step"] == 2 and record["embedding_dim"] == 512
