import numpy as np

from benchmarks import timing


def test_timers_take_turns_and_the_warm_up_is_not_counted():
    turns = []

    def timer(name, seconds):
        return lambda: turns.append(name) or next(seconds)

    timers = {"a": timer("a", iter([9.0, 1.0, 2.0])), "b": timer("b", iter([9.0, 2.0, 2.0]))}
    times = timing.interleaved(timers, rounds=2)
    assert turns == ["a", "b"] * 3
    assert {name: list(seconds) for name, seconds in times.items()} == {"a": [1, 2], "b": [2, 2]}


def test_the_ratio_is_of_the_same_round():
    """Both got four times slower in the middle: the ratio did not."""
    assert timing.ratio(np.array([2.0, 8.0, 4.0]), np.array([1.0, 4.0, 4.0])) == 2.0


def test_a_stopwatch_gives_the_time_of_one_call():
    calls = []
    assert timing.stopwatch(lambda: calls.append(0), calls=5)() >= 0
    assert len(calls) == 5


def test_tables_are_markdown(capsys):
    timing.print_table(["case", "ms"], [["a", 1234.5], ["b", 0.12345]])
    expected = ["| case | ms |", "|---|---|", "| a | 1,234 |", "| b | 0.123 |"]
    assert capsys.readouterr().out.splitlines() == expected
