"""The table of switches: each is a recipe that can be, and differences are of the same run."""

import pytest

from benchmarks import switches
from trainers.training import hard_classes, ranges

CASES = [
    (dataset, labels, name)
    for dataset in ("glyphs", "digits")
    for labels in switches.SWITCHES
    for name in switches.switches(dataset, labels)
]


@pytest.mark.parametrize(("dataset", "labels", "name"), CASES)
def test_each_switch_is_a_recipe_that_can_be(dataset, labels, name):
    switch = switches.switches(dataset, labels)[name]
    config = switches.recipe(dataset, labels, switch, number=1, steps=100)
    ranges.check(config)
    hard_classes.check(config)
    plain = switches.recipe(dataset, labels, {}, number=1, steps=100)
    assert (config == plain) == (not switch)
    assert (config.seed, config.dataset.fold, config.steps) == (1, 1, 100)


def test_runs_of_one_number_are_compared_and_the_best_is_first():
    table = switches.rows({"none of them": [0.5, 0.7], "a": [0.6, 0.8], "b": [0.4, 0.6]})
    assert [row[0] for row in table] == ["a", "none of them", "b"]
    assert table[0][1:] == ["0.700", "+0.100 ± 0.000", "0.600", "0.800"]
    assert table[1][2] == "" and table[2][2] == "-0.100 ± 0.000"
