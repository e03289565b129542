"""The deployment files agree with each other and with what the commands write."""

import pathlib
import re

import pytest

from export import publish, serving_files

FOLDER = pathlib.Path(publish.__file__).parent / "deploy"
SERVERS = ["Dockerfile", "serving.yaml", "serving-gpu.yaml"]


def _flags(name):
    text = re.sub(r"^ *#.*$", "", (FOLDER / name).read_text(), flags=re.M)
    return dict(re.findall(r"--([a-z_]+)=([^\s\\]+)", text))


@pytest.mark.parametrize("name", SERVERS)
def test_the_image_is_pinned(name):
    text = (FOLDER / name).read_text()
    assert not re.search(r"tensorflow/serving(:latest|\s*$)", text, re.M)
    assert publish.IMAGE_TAG in text


@pytest.mark.parametrize("name", SERVERS)
def test_servers_have_the_same_flags_and_read_what_is_written(name):
    found = _flags(name)
    assert found.keys() == _flags("serving.yaml").keys()
    files = {value.rpartition("/")[2] for flag, value in found.items() if "config_file" in flag}
    assert files - {"30"} == {"models.config", "platform.config", "monitoring.config"}
    assert {"platform.config", "monitoring.config"} <= serving_files.FIELDS.keys()
    assert found["allow_version_labels_for_unavailable_models"] == "true"


@pytest.mark.parametrize("name", SERVERS[1:])
def test_pods_are_ready_when_metadata_is(name):
    text = (FOLDER / name).read_text()
    probes = re.findall(r"(\w+)Probe:\n\s+httpGet: {path: (\S+), port: rest}", text)
    assert dict(probes)["readiness"].endswith("/metadata")


@pytest.mark.parametrize("name", [*SERVERS[1:], "prometheus.yaml"])
def test_prometheus_finds_the_metrics(name):
    (path,) = re.findall('path: "(.*)"', (FOLDER / "monitoring.config").read_text())
    assert f"path: {path}\n" in (FOLDER / name).read_text()


def test_gpus_are_asked_for():
    text = (FOLDER / "serving-gpu.yaml").read_text()
    assert f"tensorflow/serving:{publish.IMAGE_TAG}-gpu" in text and "nvidia.com/gpu: 1" in text
