"""Which versions serve: policies, the order of loading and unloading, labels, errors."""

import os
import threading
import time

import grpc
import pytest
from google.protobuf import wrappers_pb2
from tensorflow_serving.apis import model_pb2
from tensorflow_serving.config import model_server_config_pb2

from export.server import errors, manager
from export.server.models import State

TIMEOUT = 20


class Opened:
    """Stands for a session; counts those that are open."""

    def __init__(self, path, events):
        self.path = path
        self.events = events
        events.append(f"open {path}")

    def close(self):
        self.events.append(f"close {self.path}")


class Bench:
    """A manager over a folder; versions whose directory holds a file `broken` do not open."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.events = []
        self.told = []
        self.manager = manager.Manager(
            open_version=self._open,
            poll_seconds=0.01,
            labels_for_unavailable=options.pop("labels_for_unavailable", False),
            tell=self.told.append,
        )

    def _open(self, path):
        if os.path.exists(os.path.join(path, "broken")):
            raise OSError(f"There is nothing at {path}/saved_model.pb")
        return Opened(os.path.relpath(path, self.folder), self.events)

    def add(self, name, *, broken=False):
        os.makedirs(self.folder / "stage", exist_ok=True)
        if broken:
            (self.folder / "stage" / "broken").touch()
        os.makedirs((self.folder / name).parent, exist_ok=True)
        os.rename(self.folder / "stage", self.folder / name)

    def config(self, *, specific=(), labels=(), num_versions=0, every=False, names=("m",)):
        config = model_server_config_pb2.ModelServerConfig()
        for name in names:
            model = config.model_config_list.config.add(
                name=name, base_path=str(self.folder / name), model_platform="tensorflow"
            )
            if specific:
                model.model_version_policy.specific.versions.extend(specific)
            if num_versions:
                model.model_version_policy.latest.num_versions = num_versions
            if every:
                model.model_version_policy.all.SetInParent()
            model.version_labels.update(dict(labels))
        return config

    def states(self):
        try:
            found = self.manager.status(model_pb2.ModelSpec(name="m"))
        except errors.ServingError:
            return {}
        return {v.version: State.Name(v.state) for v in found.model_version_status}

    def wait(self, **states):
        """Until the versions, given as `v1="END"`, are in these states."""
        wanted = {int(name[1:]): state for name, state in states.items()}
        assert eventually(lambda: self.states() == wanted), (self.states(), self.events)


def eventually(condition):
    """Whether the condition comes true in good time."""
    end = time.monotonic() + TIMEOUT
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.manager.stop()
    opened = [event[5:] for event in made.events if event.startswith("open")]
    closed = [event[6:] for event in made.events if event.startswith("close")]
    assert sorted(opened) == sorted(closed)  # Nothing is left open, nothing closed twice.


def _spec(version=None, label=""):
    spec = model_pb2.ModelSpec(name="m", version_label=label) if label else None
    spec = spec or model_pb2.ModelSpec(name="m")
    if version is not None:
        spec.version.CopyFrom(wrappers_pb2.Int64Value(value=version))
    return spec


def test_a_new_version_is_loaded_before_the_old_one_is_unloaded(bench):
    bench.add("m/1")
    bench.manager.start(bench.config())
    assert bench.manager.wait_until_available("m", timeout=TIMEOUT) == 1
    bench.add("m/2")
    assert bench.manager.wait_until_available("m", timeout=TIMEOUT, version=2) == 2
    bench.wait(v1="END", v2="AVAILABLE")
    assert bench.events == ["open m/1", "open m/2", "close m/1"]
    assert bench.told[:2] == ["Serving m/1", "Serving m/2"]


@pytest.mark.parametrize(
    ("policy", "served"),
    [
        ({}, {4}),
        ({"num_versions": 2}, {2, 4}),
        ({"every": True}, {1, 2, 4}),
        ({"specific": [1, 2, 7]}, {1, 2}),
    ],
)
def test_policies(bench, policy, served):
    for name in ("m/1", "m/2", "m/4", "m/.tmp-5", "m/notes", f"m/{2**63}"):
        bench.add(name)
    bench.manager.start(bench.config(**policy))
    bench.wait(**{f"v{number}": "AVAILABLE" for number in served})
    # The highest first.
    assert bench.events == [f"open m/{number}" for number in sorted(served, reverse=True)]


def test_a_request_keeps_its_version_open(bench):
    bench.add("m/1")
    bench.manager.start(bench.config())
    bench.manager.wait_until_available("m", timeout=TIMEOUT)
    with bench.manager.serving(_spec()) as version:
        bench.add("m/2")
        bench.wait(v1="UNLOADING", v2="AVAILABLE")
        with bench.manager.serving(_spec()) as newer:
            assert (version.number, newer.number) == (1, 2)
        with pytest.raises(errors.ServingError, match=r"Specific\(m, 1\)"):
            bench.manager.serving(_spec(1)).__enter__()
        assert "close m/1" not in bench.events
    bench.wait(v1="END", v2="AVAILABLE")


def test_stop_waits_for_requests(bench):
    bench.add("m/1")
    bench.manager.start(bench.config())
    bench.manager.wait_until_available("m", timeout=TIMEOUT)
    stopping = threading.Thread(target=bench.manager.stop)
    with bench.manager.serving(_spec()):
        stopping.start()
        bench.wait(v1="UNLOADING")
        assert bench.events == ["open m/1"]
    stopping.join(TIMEOUT)
    assert bench.events == ["open m/1", "close m/1"]


def test_a_broken_version_leaves_the_old_one(bench):
    bench.add("m/1")
    bench.manager.start(bench.config())
    bench.manager.wait_until_available("m", timeout=TIMEOUT)
    bench.add("m/2", broken=True)
    bench.wait(v1="AVAILABLE", v2="END")
    status = bench.manager.status(_spec()).model_version_status[0].status
    assert status.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    assert status.error_message == "There is nothing at m/2/saved_model.pb"  # Not the whole path.
    with pytest.raises(errors.ServingError, match="model.s. did not become available"):
        bench.manager.wait_until_available("m", timeout=TIMEOUT, version=2)
    bench.add("m/3")
    bench.wait(v1="END", v2="END", v3="AVAILABLE")


def test_latest_2_loses_a_good_version_to_a_broken_one(bench):
    """As in TF Serving: with labels, use `specific`."""
    bench.add("m/1")
    bench.add("m/2")
    bench.manager.start(bench.config(num_versions=2))
    bench.wait(v1="AVAILABLE", v2="AVAILABLE")
    bench.add("m/3", broken=True)
    bench.wait(v1="END", v2="AVAILABLE", v3="END")


def test_a_version_that_comes_back_is_tried_again(bench):
    bench.add("m/1", broken=True)
    os.makedirs(bench.folder / "other")
    bench.manager.start(bench.config(names=("m", "other")))
    bench.wait(v1="END")
    os.rename(bench.folder / "m" / "1", bench.folder / "old")
    for version in (1, 2):  # Between the looks that see these, one has seen that it is gone.
        bench.add(f"other/{version}")
        bench.manager.wait_until_available("other", version=version, timeout=TIMEOUT)
    bench.add("m/1")
    bench.wait(v1="AVAILABLE")


def test_specific_versions_are_rolled_back_by_reload(bench):
    bench.add("m/1")
    bench.add("m/2")
    bench.manager.start(bench.config(specific=[2]))
    bench.wait(v2="AVAILABLE")
    bench.manager.reload(bench.config(specific=[1]))
    bench.wait(v1="AVAILABLE", v2="END")
    bench.manager.reload(bench.config(specific=[2]))
    bench.wait(v1="END", v2="AVAILABLE")


def test_labels(bench):
    bench.add("m/1")
    bench.add("m/2")
    bench.manager.start(bench.config(every=True))
    bench.wait(v1="AVAILABLE", v2="AVAILABLE")
    bench.manager.reload(bench.config(every=True, labels={"stable": 1, "canary": 2}))
    with bench.manager.serving(_spec(label="stable")) as version:
        assert version.number == 1
    with pytest.raises(errors.ServingError, match="assign label to version 3 of model m, which is"):
        bench.manager.reload(bench.config(every=True, labels={"stable": 3}))
    with bench.manager.serving(_spec(label="canary")) as version:
        assert version.number == 2  # The old labels stay.
    bench.manager.reload(bench.config(every=True, labels={"stable": 2}))
    with pytest.raises(errors.ServingError, match="Unrecognized servable version label: canary"):
        bench.manager.serving(_spec(label="canary")).__enter__()


def test_labels_of_versions_to_come(tmp_path, bench):
    config = bench.config(labels={"stable": 1})
    with pytest.raises(errors.ServingError, match="not currently available") as caught:
        bench.manager.start(config)
    assert caught.value.code == grpc.StatusCode.FAILED_PRECONDITION
    lenient = Bench(tmp_path, labels_for_unavailable=True)
    lenient.manager.start(config)
    lenient.add("m/1")
    lenient.manager.wait_until_available("m", timeout=TIMEOUT)
    with lenient.manager.serving(_spec(label="stable")) as version:
        assert version.number == 1
    with pytest.raises(errors.ServingError, match="not currently available"):
        lenient.manager.reload(lenient.config(labels={"stable": 2}))  # It would break stable.
    lenient.manager.stop()


def test_models_come_and_go(bench):
    bench.add("m/1")
    bench.add("n/1")
    bench.manager.start(bench.config())
    bench.manager.reload(bench.config(names=("m", "n")))
    assert bench.manager.models() == {name: str(bench.folder / name) for name in ("m", "n")}
    bench.manager.reload(bench.config(names=("n",)))
    bench.wait(v1="END")
    assert not bench.manager.is_model("m")
    with pytest.raises(errors.ServingError, match=r"Latest\(m\)"):
        bench.manager.serving(_spec()).__enter__()
    bench.manager.reload(bench.config(names=("m",)))
    assert bench.manager.wait_until_available("m", timeout=TIMEOUT) == 1


def test_a_new_model_that_cannot_be_loaded_fails_the_reload(bench):
    bench.add("n/1", broken=True)
    bench.manager.start(bench.config())
    with pytest.raises(errors.ServingError, match="n version: 1.* NOT_FOUND: There is") as caught:
        bench.manager.reload(bench.config(names=("m", "n")))
    assert caught.value.code == grpc.StatusCode.UNKNOWN


def test_a_missing_base_path_keeps_what_is_served(bench):
    bench.add("m/1")
    bench.manager.start(bench.config())
    bench.wait(v1="AVAILABLE")
    os.rename(bench.folder / "m", bench.folder / "away")
    bench.add("m2/1")
    bench.manager.reload(bench.config(names=("m", "m2")))  # At least one look has passed.
    bench.wait(v1="AVAILABLE")
    os.rename(bench.folder / "away", bench.folder / "m")
    os.rename(bench.folder / "m" / "1", bench.folder / "1")
    bench.wait(v1="END")  # An empty base path unloads all, as in TF Serving.


def test_waiting_in_vain_tells_what_is_known(bench):
    bench.manager.start(bench.config())
    with pytest.raises(TimeoutError, match="m is not available. Its versions: none."):
        bench.manager.wait_until_available("m", timeout=0.05)
    with pytest.raises(TimeoutError, match="other/3 is not available"):
        bench.manager.wait_until_available("other", timeout=0.05, version=3)


def test_a_reload_ends_when_nobody_waits_for_it(bench):
    bench.manager.start(bench.config())
    bench.manager.reload(bench.config(names=("m", "n")), is_active=lambda: False)
    assert bench.manager.is_model("n")
