"""Combinations of parameters: some for `make test`, all of them for `make test-all`."""

import itertools

import pytest


def diagonal(*factors):
    """All combinations, of which as many as the longest factor has values are not slow.

    Among those every value of every factor occurs: what a value does by itself is seen at once,
    what it does together with another one is seen by `make test-slow`.

    Example:
        >>> kept = [param.values for param in diagonal("ab", (1, 2, 3)) if not param.marks]
        >>> kept
        [('a', 1), ('a', 3), ('b', 2)]
    """
    longest = max(map(len, factors))
    quick = {tuple(n % len(factor) for factor in factors) for n in range(longest)}
    return [
        pytest.param(
            *(factor[n] for factor, n in zip(factors, numbers, strict=True)),
            marks=[] if numbers in quick else pytest.mark.slow,
        )
        for numbers in itertools.product(*(range(len(factor)) for factor in factors))
    ]


def quick(values, *, among):
    """All values, of which those not `among` the ones named are slow."""
    assert set(among) <= set(values)
    return [
        value if value in among else pytest.param(value, marks=pytest.mark.slow) for value in values
    ]
