import types

import numpy as np
import pytest

from trainers.cli import commands
from trainers.distributed import acceleration, agreement, cluster


def _exchange(*numbers):
    """As worker 0 of so many sees it; each worker has sent one number."""
    workers = cluster.Cluster(tuple(f"host{index}:1" for index in range(len(numbers))))
    return types.SimpleNamespace(
        cluster=workers, gather=lambda own: np.array(numbers, np.int64)[:, None]
    )


def test_one_worker_is_its_own_chief():
    exchange = agreement.Exchange(None, cluster.Cluster())
    assert exchange.gather(7, 8).tolist() == [[7, 8]]
    assert exchange.from_chief(np.array([[7], [8]])).tolist() == [[7], [8]]


def test_workers_with_the_same_data_go_on():
    agreement.check_same_data(_exchange(7, 7), 7)


def test_workers_with_other_data_stop_and_name_each_other():
    with pytest.raises(commands.ConfigError) as error:
        agreement.check_same_data(_exchange(7, 8), 7)
    message = str(error.value)
    assert "worker 0 (host0:1) 00000007, worker 1 (host1:1) 00000008" in message
    assert "give all of them the same copy" in message and "\n" not in message


def test_workers_whose_machines_chose_otherwise_stop():
    choice = acceleration.Choice("mixed_float16", "auto", False)
    agreement.check_same_choice(_exchange(7, 7), choice)
    with pytest.raises(commands.ConfigError, match="worker 0 chose mixed_float16, auto and False"):
        agreement.check_same_choice(_exchange(7, 8), choice)
