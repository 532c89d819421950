"""Builds the C programs, and ends the run with the table of ratios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Build, Table

TABLE = pytest.StashKey[Table]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = Table()


@pytest.fixture(scope="session")
def bench_build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    directory: Path = tmp_path_factory.mktemp("bench")
    return Build(directory)


@pytest.fixture
def bench_table(request: pytest.FixtureRequest) -> Table:
    return request.config.stash[TABLE]


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    table = config.stash[TABLE]
    if table.rows:
        terminalreporter.section("pysup beside the limit; medians of one run, sides in turns")
        terminalreporter.write_line(table.text())
