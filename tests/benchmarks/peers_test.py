import sys

import numpy as np
import pytest

from benchmarks import peers

SCRIPT = "tests.benchmarks.peers_script"


@pytest.fixture
def this_python(monkeypatch):
    monkeypatch.setenv("CIRCLE_TF_PEERS", sys.executable)


def test_a_peer_answers_about_its_inputs_until_closed(this_python):
    with peers.Peer(SCRIPT, inputs={"rows": np.arange(4.0)}) as peer:
        assert peer.ask("total") == 6.0
        assert peer.timer("total", times=3)() == 18.0
    with pytest.raises(ValueError):
        peer.ask("total")


def test_a_peer_that_fails_says_which_call(this_python, capfd):
    with peers.Peer(SCRIPT) as peer:
        with pytest.raises(RuntimeError, match=r"peers_script failed at fail\(\{\}\) with .* 1;"):
            peer.ask("fail")
    assert "this peer cannot" in capfd.readouterr().err


def test_without_peers_python_says_what_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("CIRCLE_TF_PEERS", str(tmp_path / "python"))
    with pytest.raises(FileNotFoundError, match="run make bench-peers"):
        peers.Peer(SCRIPT)
