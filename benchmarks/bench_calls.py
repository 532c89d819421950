"""The cases of cases.py under pytest-benchmark.

It times the whole step of pysup; the other sides take their turns between two bursts of those. The table at the end
has all sides and parts.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from cases import CASES, Skip
from harness import WARM_UP, Build, Table, Turns

PARAMETERS = [
    pytest.param(name, arguments, id="-".join([name, *(str(one) for one in arguments if one != "-")]))
    for name, (_, chosen) in CASES.items()
    for arguments in chosen
]


@pytest.mark.parametrize(("name", "arguments"), PARAMETERS)
def test_call(benchmark: Any, bench_build: Build, bench_table: Table, name: str, arguments: tuple[object, ...]) -> None:
    make, _ = CASES[name]
    try:
        with closing(make(bench_build, *arguments)) as cases:  # type: ignore[type-var]
            for case in cases:
                ours, *others = case.others
                turns = Turns([case.limit, *others], case.size)
                ours.burst(WARM_UP)
                benchmark.pedantic(ours.run, (1,), setup=turns.next, rounds=case.bursts * case.size)
                bench_table.add(case)
    except Skip as reason:
        bench_table.skip(name, str(arguments[0]), str(reason))
        pytest.skip(str(reason))
