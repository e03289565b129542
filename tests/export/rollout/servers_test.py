"""Servers follow what the commands write, under load, and those that do not are named."""

import contextlib
import os
import shutil
import threading

import grpc
import pytest

from export import server
from export.cli import console, runs
from export.publishing import publisher
from export.rollout import lifecycle, models_config, servers, versions
from tests import processes, saved_models, tf_serving_rules
from tests import serving_calls as calls
from tests.serving_calls import TIMEOUT


@pytest.fixture
def base_path(tmp_path, models_folder):
    for version in (1, 2, 3):
        shutil.copytree(f"{models_folder}/tiny/{min(version, 2)}", tmp_path / "tiny" / str(version))
    return str(tmp_path / "tiny")


@contextlib.contextmanager
def _serving(config):
    """The local server on a models.config, and its target."""
    with server.Server(
        config, labels_for_unavailable=True, config_poll_seconds=0.05, poll_seconds=0.05
    ) as started:
        started.wait_until_available("tiny")
        yield started, f"127.0.0.1:{started.grpc_port}"


def _asked(target):
    return servers.connected([target], model="tiny", timeout=TIMEOUT)


def test_the_second_canary_is_served_by_its_label(base_path):
    config = lifecycle.default_config(base_path)
    lifecycle.add(base_path, version=1, config=config)
    with _serving(config) as (_, target), _asked(target) as asked:
        for version in (2, 3):
            lifecycle.add(base_path, version=version, config=config, servers=asked)
            assert asked[0].labels(["stable", "canary"]) == {"stable": 1, "canary": version}
        lifecycle.promote(base_path, config=config, servers=asked)
        labels = asked[0].labels(["stable", "canary", "previous"])
        assert labels == {"stable": 3, "previous": 1}


def test_a_version_that_the_server_cannot_load_is_not_listed(base_path):
    config = lifecycle.default_config(base_path)
    lifecycle.add(base_path, version=1, config=config)
    shutil.rmtree(os.path.join(base_path, "2"))
    os.mkdir(os.path.join(base_path, "2"))
    with _serving(config) as (_, target), _asked(target) as asked:
        with pytest.raises(console.ExportError, match=f"^{target}: it cannot load tiny/2: SavedM"):
            lifecycle.add(base_path, version=2, config=config, servers=asked)
        assert asked[0].labels(["stable", "canary"]) == {"stable": 1}
    (entry,) = models_config.load(config).model_config_list.config
    assert list(entry.model_version_policy.specific.versions) == [1]


def test_a_server_that_does_not_answer_is_found_out_first(base_path):
    for target, message in [
        ("127.0.0.1:1", "127.0.0.1:1 cannot be reached"),
        ("http://127.0.0.1:8501", "--server must be host:port"),
    ]:
        with pytest.raises(console.ExportError, match=message):
            _asked(target).__enter__()


# Slow: three processes that import TensorFlow.
@pytest.mark.slow
def test_the_commands_ask_and_tell(base_path):
    config = lifecycle.default_config(base_path)
    lifecycle.add(base_path, version=1, config=config)
    with _serving(config) as (_, target):
        options = [f"--base_path={base_path}", f"--server={target}"]
        told = processes.printed("-m", "export.labels", *options, "--version=2")
        assert "canary    version 2" in told and f"Asked, and in agreement: {target}." in told
        told = processes.printed("-m", "export.promote", *options)
        assert f"export.rollback --base_path={base_path} --server={target}\n" in told
    lost = processes.run("-m", "export.labels", *options)
    assert (lost.returncode, lost.stdout) == (1, "")
    assert lost.stderr.startswith(f"error: UNAVAILABLE: {target} cannot be reached")
    assert lost.stderr.count("\n") == 1


class Caller:
    """A thread that asks by a label without a pause, and checks which version answers."""

    def __init__(self, started, label, *allowed):
        self._started, self._label = started, label
        self._stop = threading.Event()
        self.allowed, self.faults, self.seen = set(allowed), [], []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(TIMEOUT)

    def _run(self):
        with calls.stub(self._started) as stub:
            while not self._stop.is_set():
                allowed = set(self.allowed)
                try:
                    answer = stub.Predict(calls.request(label=self._label), timeout=TIMEOUT)
                except grpc.RpcError as error:
                    self.faults.append(error)
                    continue
                self.seen.append(answer.model_spec.version.value)
                if self.seen[-1] not in allowed | self.allowed:
                    self.faults.append((self.seen[-1], allowed))

    @contextlib.contextmanager
    def moving_to(self, version):
        """While a command runs either version may answer; when it has ended, the new one."""
        self.allowed = self.allowed | {version}
        yield
        self.allowed = {version}


# Slow: three versions are published, and each is verified in a process that imports TensorFlow.
@pytest.mark.slow
def test_a_rollout_from_end_to_end_fails_no_call(tmp_path):
    """Publish, two canaries, promote, rollback, prune: for a server, and by TF Serving's rules."""
    run = runs.read(str(saved_models.finished_run(tmp_path / "run")))
    base_path = str(tmp_path / "models" / "tiny")
    config = lifecycle.default_config(base_path)
    stock = tf_serving_rules.StockServer(config, name="tiny")
    quiet = {"base_path": base_path, "models_config": config, "tell": lambda line: None}
    publisher.publish(run, **quiet)
    with _serving(config) as (started, target), _asked(target) as asked:
        every = [*asked, stock]
        moves = {"config": config, "servers": every}
        with Caller(started, "stable", 1) as stable:
            assert publisher.publish(run, servers=every, **quiet).labels["canary"] == 2
            with Caller(started, "canary", 2) as canary:
                with canary.moving_to(3):
                    assert publisher.publish(run, servers=every, **quiet).labels["canary"] == 3
            with stable.moving_to(3):
                lifecycle.promote(base_path, **moves)
            with stable.moving_to(1):
                assert lifecycle.rollback(base_path, **moves) == {"stable": 1}
            assert lifecycle.prune(base_path, keep=1, **moves) == [2]
        assert asked[0].labels(["stable", "canary", "previous"]) == {"stable": 1}
    assert versions.existing(base_path) == [1, 3]
    assert (stable.faults, canary.faults, stock.refused) == ([], [], [])
    assert {1, 3} <= set(stable.seen) and {2, 3} <= set(canary.seen)
