import pytest

from trainers.cli import commands
from trainers.distributed import cluster

WORKERS = ["host0:1", "host1:1"]


def test_round_trip():
    text = cluster.tf_config(WORKERS, index=1)
    found = cluster.Cluster.from_environment({"TF_CONFIG": text})
    assert found == cluster.Cluster(("host0:1", "host1:1"), 1) and not found.is_chief


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "TF_CONFIG is not set"),
        ("{", "cannot be read .JSONDecodeError"),
        ('{"cluster": {}}', "cannot be read .KeyError: 'worker'"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "found ps 0"),
        (cluster.tf_config(WORKERS, index=2), "index from 0 to 1; found worker 2"),
    ],
)
def test_bad_descriptions(text, message):
    with pytest.raises(commands.ConfigError, match=message):
        cluster.Cluster.from_environment({"TF_CONFIG": text})
