"""What all tests share. Run with `make test`; the package under test is the installed one."""

from __future__ import annotations

import collections
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

# `python -m pytest` puts the checkout first, where pysup/ is without its compiled module.
CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry).resolve() != CHECKOUT]

from support import KINDS, MODES, Driver, left_behind, mode_problem, possessions  # noqa: E402

import pysup  # noqa: E402


def pytest_report_header() -> str:
    return f"pysup {pysup.__version__} from {os.path.dirname(pysup.__file__)}, uid {os.geteuid()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Each way of supervising that this machine has."""
    problem = mode_problem(request.param)
    if problem:
        pytest.skip(problem)
    value: str = request.param
    return value


@pytest.fixture(params=KINDS)
def supervisor(request: pytest.FixtureRequest, mode: str) -> Iterator[Any]:
    """A supervisor of each kind in each mode, which must leave nothing behind."""
    before = possessions()
    with KINDS[request.param](cgroups=mode) as made:
        yield made
    Driver.let_go()
    end = time.monotonic() + 5
    while left_behind(before) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left_behind(before)


@pytest.fixture
def d(supervisor: Any) -> Driver:
    """A started domain "d" of such a supervisor."""
    return Driver(supervisor)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, and why, by reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    if not skipped:
        return
    reasons: collections.Counter[str] = collections.Counter()
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    terminalreporter.section(f"{len(skipped)} skipped")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:5}  {reason}")
