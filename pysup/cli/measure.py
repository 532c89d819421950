"""Timing a supervisor's calls."""

from __future__ import annotations

import shutil
import time

from pysup.api import SupervisorClient
from pysup.cli.base import Failure
from pysup.model import EventsRequest, ExecRequest, FreezeRequest, ThawRequest

__all__ = ["program", "time_freeze_thaw", "time_exec"]


def program(name: str) -> str:
    """The absolute path of an everyday program such as `sleep`."""
    path = shutil.which(name, path="/usr/bin:/bin:/run/current-system/sw/bin") or shutil.which(name)
    if path is None:
        raise Failure(f"this machine has no program {name!r}")
    return path


def time_freeze_thaw(supervisor: SupervisorClient, domain: str, rounds: int) -> tuple[list[int], list[int]]:
    """Freezes and thaws a running domain; gives the nanoseconds of each freeze and of each thaw."""
    freeze, thaw = FreezeRequest(domain), ThawRequest(domain)
    freezes, thaws = [], []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        supervisor.freeze(freeze)
        frozen = time.perf_counter_ns()
        supervisor.thaw(thaw)
        thaws.append(time.perf_counter_ns() - frozen)
        freezes.append(frozen - began)
    return freezes, thaws


def time_exec(supervisor: SupervisorClient, domain: str, rounds: int) -> tuple[list[int], list[int]]:
    """Runs `true` in a running domain; gives the nanoseconds until it ran, and until its end was reported."""
    path = program("true")
    started, ended = [], []
    with supervisor.events(EventsRequest(domain)) as events:
        for number in range(rounds):
            request = ExecRequest(domain=domain, name=f"true-{number}", path=path)
            began = time.perf_counter_ns()
            supervisor.exec(request)
            started.append(time.perf_counter_ns() - began)
            while events.read().event.name != request.name:
                pass
            ended.append(time.perf_counter_ns() - began)
    return started, ended
