"""Labels move as promised, whatever else runs and whenever it is killed."""

import multiprocessing
import os
import signal
import time

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from export.cli import console
from export.rollout import lifecycle, models_config, versions
from tests import processes, tf_serving_rules


@pytest.fixture
def base_path(tmp_path):
    for version in range(1, 7):
        (tmp_path / "tiny" / str(version)).mkdir(parents=True)
    return str(tmp_path / "tiny")


@pytest.fixture
def config(base_path):
    return lifecycle.default_config(base_path)


@pytest.fixture
def stock(config):
    """A TF Serving that polls the file and can be asked."""
    return tf_serving_rules.StockServer(config, name="tiny")


def _labels(config):
    return dict(models_config.load(config).model_config_list.config[0].version_labels)


def _listed(config):
    (entry,) = models_config.load(config).model_config_list.config
    return list(entry.model_version_policy.specific.versions)


def test_canary_promote_rollback(base_path, config, stock):
    asked = {"config": config, "servers": [stock]}
    assert lifecycle.add(base_path, version=1, **asked) == {"stable": 1}
    assert lifecycle.add(base_path, version=2, **asked) == {"stable": 1, "canary": 2}
    with pytest.raises(console.ExportError, match="canary of tiny is version 2, not 3"):
        lifecycle.promote(base_path, version=3, **asked)
    assert lifecycle.promote(base_path, **asked) == {"stable": 2, "previous": 1}
    assert _labels(config) == {"stable": 2, "previous": 1}
    lifecycle.add(base_path, version=3, **asked)
    # First the canary goes, then the promotion is taken back.
    assert lifecycle.rollback(base_path, **asked) == {"stable": 2, "previous": 1}
    assert lifecycle.rollback(base_path, **asked) == {"stable": 1}
    with pytest.raises(console.ExportError, match="neither a canary to drop nor a previous"):
        lifecycle.rollback(base_path, **asked)
    with pytest.raises(console.ExportError, match="no canary to promote.*stable 1"):
        lifecycle.promote(base_path, **asked)
    assert stock.by_label == {"stable": 1} and stock.available == {1} and not stock.refused


def test_a_second_canary_arrives(base_path, config, stock):
    asked = {"config": config, "servers": [stock]}
    for version in (1, 2, 3):
        lifecycle.add(base_path, version=version, **asked)
        stock.poll()
    assert stock.by_label == _labels(config) == {"stable": 1, "canary": 3}
    assert stock.available == {1, 3}
    lifecycle.promote(base_path, **asked)
    assert stock.by_label == _labels(config) == {"stable": 3, "previous": 1}
    assert not stock.refused


@pytest.mark.parametrize("polls", [True, False], ids=["polls", "misses steps"])
def test_without_a_server_to_ask_a_label_waits(base_path, config, stock, polls):
    """Whatever a server has seen of the files before, it can take the next one."""
    follow = stock.poll if polls else lambda: None
    lifecycle.add(base_path, version=1, config=config)
    stock.poll()
    for version in (2, 3):
        labels = lifecycle.add(base_path, version=version, config=config)
        assert version not in labels.values()
        report = lifecycle.report(base_path, labels=labels, config=config)
        assert f"no label  version {version}, until servers have loaded it" in report
        stock.poll()  # This is what --loaded says.
        assert version in stock.available
        labels = lifecycle.settle(base_path, config=config, loaded=True)
        assert labels == {"stable": 1, "canary": version}
        follow()
    assert lifecycle.promote(base_path, config=config) == {"stable": 3, "previous": 1}
    follow()
    lifecycle.add(base_path, version=4, config=config)
    follow()
    assert lifecycle.rollback(base_path, config=config) == {"stable": 3, "previous": 1}
    follow()
    assert lifecycle.rollback(base_path, config=config) == {"stable": 1}
    stock.poll()
    assert stock.by_label == {"stable": 1} and stock.available == {1} and not stock.refused


def test_promote_and_rollback_with_a_version_that_waits(base_path, config, stock):
    for version in (1, 2):
        lifecycle.add(base_path, version=version, config=config, servers=[stock])
    lifecycle.add(base_path, version=3, config=config)
    assert lifecycle.promote(base_path, config=config) == {"stable": 2, "previous": 1}
    assert _listed(config) == [1, 2, 3]  # It waits on.
    with pytest.raises(console.ExportError, match="Version 3 waits.*export.labels"):
        lifecycle.promote(base_path, config=config)
    assert lifecycle.settle(base_path, config=config) == {"stable": 2, "previous": 1}
    settled = lifecycle.settle(base_path, config=config, servers=[stock])
    assert settled == {"stable": 2, "previous": 1, "canary": 3}
    lifecycle.add(base_path, version=4, config=config)
    assert lifecycle.rollback(base_path, config=config) == {"stable": 2, "previous": 1}
    assert _listed(config) == [1, 2]


def test_a_server_that_does_not_follow_leaves_all_as_it_was(base_path, config, stock):
    broken = tf_serving_rules.StockServer(config, name="tiny", broken=[2])
    lifecycle.add(base_path, version=1, config=config, servers=[stock, broken])
    with pytest.raises(console.ExportError, match="Version 1 of tiny is stable already"):
        lifecycle.add(base_path, version=1, config=config)
    with pytest.raises(console.ExportError, match=r"cannot load \[2\]. .*config is as it was\.$"):
        lifecycle.add(base_path, version=2, config=config, servers=[stock, broken])
    assert _labels(config) == stock.by_label == broken.by_label == {"stable": 1}
    assert stock.available == broken.available == {1}
    assert lifecycle.add(base_path, version=2, config=config, servers=[stock])["canary"] == 2
    with pytest.raises(console.ExportError, match="as it was"):
        lifecycle.promote(base_path, config=config, servers=[stock, broken])
    assert _labels(config) == stock.by_label == {"stable": 1, "canary": 2}


def test_a_first_version_that_no_server_loads_leaves_no_file(base_path, config):
    broken = tf_serving_rules.StockServer(config, name="tiny", broken=[1])
    with pytest.raises(console.ExportError, match="cannot load"):
        lifecycle.add(base_path, version=1, config=config, servers=[broken])
    assert not os.path.exists(config)


def test_a_server_that_refused_a_file_is_brought_back(base_path, config):
    """As the files were written before: a label moved to a version that was not loaded."""
    server = tf_serving_rules.StockServer(config, name="tiny")
    for version in (1, 2):
        lifecycle.add(base_path, version=version, config=config, servers=[server])
    with models_config.locked(config, tell=print) as content:
        models_config.set_labels(
            content, name="tiny", base_path=base_path, labels={"stable": 3, "previous": 1}
        )
        models_config.write(config, content)
    server.poll()
    assert server.refused and server.by_label == {"stable": 1, "canary": 2}
    assert lifecycle.settle(base_path, config=config, servers=[server]) == _labels(config)
    assert server.by_label == {"stable": 3, "previous": 1}


def test_labels_of_other_names_stay(base_path, config, stock):
    for version in (1, 2):
        lifecycle.add(base_path, version=version, config=config, servers=[stock])
    with models_config.locked(config, tell=print) as content:
        content.model_config_list.config[0].version_labels["mobile"] = 1
        models_config.write(config, content)
    lifecycle.promote(base_path, config=config)
    assert _labels(config) == {"stable": 2, "previous": 1, "mobile": 1}
    lifecycle.rollback(base_path, config=config)
    assert _labels(config) == {"stable": 1, "mobile": 1}


def test_the_file_is_tf_servings_own(base_path, config, stock):
    lifecycle.add(base_path, version=3, config=config)
    lifecycle.add(base_path, version=4, config=config, servers=[stock])
    parsed = model_server_config_pb2.ModelServerConfig()
    with open(config) as file:
        text_format.Parse(file.read(), parsed)
    (entry,) = parsed.model_config_list.config
    assert (entry.name, entry.base_path, entry.model_platform) == ("tiny", base_path, "tensorflow")
    assert list(entry.model_version_policy.specific.versions) == [3, 4]
    assert dict(entry.version_labels) == {"stable": 3, "canary": 4}


def test_other_models_in_the_file_stay(base_path, config, tmp_path):
    (tmp_path / "other" / "1").mkdir(parents=True)
    lifecycle.add(str(tmp_path / "other"), version=1, config=config)
    lifecycle.add(base_path, version=1, config=config)
    assert [entry.name for entry in models_config.load(config).model_config_list.config] == [
        "other",
        "tiny",
    ]


def test_prune_keeps_the_newest_and_what_is_served(base_path, config):
    lifecycle.add(base_path, version=1, config=config)
    lifecycle.add(base_path, version=3, config=config)
    assert lifecycle.prune(base_path, config=config, keep=2) == [2, 4]
    assert versions.existing(base_path) == [1, 3, 5, 6]
    server = tf_serving_rules.StockServer(config, name="tiny")
    server.available = {5}  # It has not looked at the file yet.
    server.poll = lambda: None
    assert lifecycle.prune(base_path, config=config, keep=1, servers=[server]) == []
    assert lifecycle.prune(base_path, config=config, keep=1) == [5]
    with pytest.raises(console.ExportError, match="1 or more"):
        lifecycle.prune(base_path, config=config, keep=0)
    assert not [name for name in os.listdir(base_path) if name.startswith(".tmp")]


def test_prune_wants_to_know_what_is_served(base_path, config, tmp_path):
    for change in (lifecycle.promote, lifecycle.rollback):
        with pytest.raises(console.ExportError, match="There is no .*publish writes it"):
            change(base_path, config=str(tmp_path / "none" / "models.config"))
    assert os.listdir(tmp_path) == ["tiny"]
    with pytest.raises(console.ExportError, match="There is no .*publish writes it"):
        lifecycle.prune(base_path, config=config, keep=1)
    (tmp_path / "other" / "1").mkdir(parents=True)
    lifecycle.add(str(tmp_path / "other"), version=1, config=config)
    with pytest.raises(console.ExportError, match="does not list tiny"):
        lifecycle.prune(base_path, config=config, keep=1)
    assert len(versions.existing(base_path)) == 6


def test_a_model_of_the_same_name_elsewhere_is_not_touched(base_path, config, tmp_path):
    lifecycle.add(base_path, version=1, config=config)
    (tmp_path / "b" / "tiny" / "1").mkdir(parents=True)
    with pytest.raises(console.ExportError, match="lists tiny at"):
        lifecycle.add(str(tmp_path / "b" / "tiny"), version=1, config=config)


def test_a_version_that_is_not_there_is_not_listed(base_path, config):
    lifecycle.add(base_path, version=1, config=config)
    with pytest.raises(console.ExportError, match="left as it is: .*version 9 is not in"):
        lifecycle.add(base_path, version=9, config=config)
    assert _labels(config) == {"stable": 1}


GOOD = """
model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow"
  model_version_policy { specific { versions: 1 versions: 2 } }
  version_labels { key: "stable" value: 1 } } }
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("base_path", "basepath", 'no field named "basepath"'),
        ("versions: 2", "versions: two", "two"),
        ('"/m"', '"m"', "'m' is not an absolute path"),
        ("value: 1", "value: 3", r"label stable is on version 3, which is not among \[1, 2\]"),
        ("versions: 2", "versions: 1", "listed twice"),
        ("specific { versions: 1 versions: 2 }", "latest { num_versions: 2 }", "must list specif"),
        ('platform: "tensorflow"', 'platform: "pytorch"', "found 'pytorch'"),
        ('name: "m"', "", "has no name"),
        (GOOD, "", "lists no model"),
        ("} } }\n", '} } config { name: "m" } }\n', "model m is listed twice"),
    ],
)
def test_lint(tmp_path, old, new, message):
    path = tmp_path / "models.config"
    path.write_text(GOOD)
    assert models_config.lint(models_config.read(str(path)), look=False) == []
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(console.ExportError, match=message):
        models_config.load(str(path))


def test_versions_that_are_gone_are_found(tmp_path):
    (tmp_path / "models.config").write_text(GOOD)
    with pytest.raises(console.ExportError, match="version 1 is not in /m"):
        models_config.load(str(tmp_path / "models.config"))


def _add_and_promote(base_path, config, barrier):
    barrier.wait()
    for _ in range(5):
        with versions.exclusive(base_path, tell=lambda line: None):
            version = versions.choose(base_path)
            os.mkdir(os.path.join(base_path, str(version)))
            lifecycle.add(base_path, version=version, config=config, tell=lambda line: None)
        lifecycle.settle(base_path, config=config, loaded=True, tell=lambda line: None)
        try:
            lifecycle.promote(base_path, config=config, tell=lambda line: None)
        except console.ExportError:
            pass  # Another process has promoted it.
        lifecycle.prune(base_path, config=config, keep=2, tell=lambda line: None)


def test_processes_at_once_lose_nothing(base_path, config):
    lifecycle.add(base_path, version=6, config=config)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [
        context.Process(target=_add_and_promote, args=(base_path, config, barrier))
        for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        models_config.read(config)  # Whole at any moment.
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    existing = versions.existing(base_path)
    assert existing[-1] == 26
    assert set(_labels(config).values()) <= set(existing)


_SLOW = """
import sys, time
from export.rollout import models_config
with models_config.locked(sys.argv[1], tell=print) as config:
    config.Clear()
    print("changing", flush=True)
    time.sleep(60)
"""


# Slow: a process that imports TensorFlow.
@pytest.mark.slow
def test_killed_in_the_middle_the_file_is_the_old_one_and_the_lock_is_free(base_path, config):
    lifecycle.add(base_path, version=1, config=config)
    with processes.started("-c", _SLOW, config) as process:
        assert process.stdout.readline() == "changing\n"
        process.send_signal(signal.SIGKILL)
    start = time.monotonic()
    assert lifecycle.add(base_path, version=2, config=config) == {"stable": 1}
    assert _listed(config) == [1, 2]
    assert time.monotonic() - start < 30


# Slow: seven processes that import TensorFlow.
@pytest.mark.slow
def test_the_commands_move_labels_and_remove_versions(base_path, config):
    for version in (1, 2):
        lifecycle.add(base_path, version=version, config=config)
    option = f"--base_path={base_path}"
    told = processes.printed("-m", "export.labels", option)
    assert "no label  version 2, until" in told and "No server was asked" in told
    assert "canary    version 2" in processes.printed("-m", "export.labels", option, "--loaded")
    processes.printed("-m", "export.promote", option, "--version=2")
    assert _labels(config) == {"stable": 2, "previous": 1}
    again = processes.run("-m", "export.promote", option)
    assert again.returncode == 1 and "Traceback" not in again.stderr
    assert "no canary to promote" in again.stderr
    processes.printed("-m", "export.rollback", option)
    assert _labels(config) == {"stable": 1}
    assert "Left: 1, 6" in processes.printed(
        "-m", "export.prune", option, "--keep=1"
    )  # One has a label.
    assert versions.existing(base_path) == [1, 6]


# Slow: two processes that import TensorFlow.
@pytest.mark.slow
def test_the_command_writes_and_checks_serving_files(base_path, config):
    lifecycle.add(base_path, version=1, config=config)
    folder = os.path.dirname(config)
    processes.printed("-m", "export.serving_files", f"--output={folder}", "--batch_sizes=1,4")
    files = [config, os.path.join(folder, "batching.config")]
    checked = processes.printed("-m", "export.serving_files", f"--check={','.join(files)}")
    assert checked == "".join(f"{file} is right.\n" for file in files)
