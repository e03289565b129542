import os
import pathlib
import subprocess

import pytest
import yaml

from trainers.distributed import cluster

ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "trainers" / "deploy"


@pytest.fixture
def manifest():
    found = list(yaml.safe_load_all((FOLDER / "job.yaml").read_text()))
    return {document["kind"]: document for document in found}


def pod(manifest):
    return manifest["Job"]["spec"]["template"]


def test_service_finds_the_pods_and_names_them(manifest):
    service, template = manifest["Service"], pod(manifest)
    assert service["spec"]["clusterIP"] == "None"
    selector = service["spec"]["selector"].items()
    assert selector <= template["metadata"]["labels"].items()
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    (trainer,) = template["spec"]["containers"]
    assert trainer["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"]


def test_one_pod_per_worker(manifest):
    spec = manifest["Job"]["spec"]
    (trainer,) = spec["template"]["spec"]["containers"]
    workers = {each["name"]: each["value"] for each in trainer["env"]}["WORKERS"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(workers)
    mounts = {mount["name"] for mount in trainer["volumeMounts"]}
    assert mounts == {volume["name"] for volume in spec["template"]["spec"]["volumes"]}


@pytest.mark.parametrize("index", [0, 1])
def test_the_script_sets_tf_config(manifest, index, tmp_path):
    stub = tmp_path / "python"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" "$@"\n')
    stub.chmod(0o755)
    (trainer,) = pod(manifest)["spec"]["containers"]
    environment = {each["name"]: each["value"] for each in trainer["env"]}
    environment |= {"JOB_COMPLETION_INDEX": str(index)}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*trainer["command"], *trainer["args"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    text, *arguments = done.stdout.splitlines()
    found = cluster.Cluster.from_environment({"TF_CONFIG": text})
    job, service = manifest["Job"]["metadata"]["name"], manifest["Service"]["metadata"]["name"]
    port = trainer["ports"][0]["containerPort"]
    names = tuple(f"{job}-{number}.{service}:{port}" for number in range(2))
    assert found == cluster.Cluster(names, index)
    assert arguments[:2] == ["-m", "trainers.train"]
    assert (ROOT / arguments[2].removeprefix("--config=")).is_file()
    assert "--config.strategy=multi_worker" in arguments


def test_the_image_has_what_the_trainer_needs():
    lines = (FOLDER / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ")}
    assert copied == {"requirements.lock", "circle_tf", "trainers", "configs"}
    assert all((ROOT / name).exists() for name in copied)
    assert 'ENTRYPOINT ["python", "-m", "trainers.train"]' in lines
