"""`pysup doctor`: what this machine offers, what is missing and why, and what the calls cost here."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pysup import __version__
from pysup.cli.base import Failure, Parser, deadline
from pysup.cli.measure import program, time_exec, time_freeze_thaw
from pysup.cli.text import Printer, percentile
from pysup.errors import SupervisorError
from pysup.local import LocalSupervisor
from pysup.model import ExecRequest, StartRequest, StopRequest

ROUNDS = 200
"""Freezes and thaws that are timed."""

EXECS = 50
"""Processes that are timed."""

CONSEQUENCES = {
    "cpu_limit": "a domain cannot have a CPU limit",
    "memory_limit": "a domain cannot have a memory limit",
    "oom": "a death by lack of memory looks like any other SIGKILL",
}


def main(arguments: list[str]) -> int:
    """Prints the report."""
    parser = Parser(
        "doctor",
        "Show what was picked for each need on this machine, what is missing and why, and measured times.",
    )
    parser.add_argument("--json", action="store_true", help="the report as one JSON object")
    options = parser.parse_args(arguments)
    with LocalSupervisor() as supervisor:
        providers = [
            {key: getattr(each, key) for key in ("need", "choice", "detail", "reason")}
            for each in supervisor.providers()
        ]
        report = {**_machine(), "providers": providers, **_measure(supervisor)}
    if options.json:
        import orjson

        print(orjson.dumps(report).decode())
    else:
        _print(Printer(sys.stdout), report)
    return 0


# --- The machine -----------------------------------------------------------------------------------------


def _machine() -> dict[str, Any]:
    return {
        "version": __version__,
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "usable_cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "cgroups": _cgroups(),
    }


def _cgroups() -> str:
    """The layout of the cgroups in words, from the mounts that this process sees."""
    v1, v2 = [], None
    for line in _lines("/proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup":
            v1 += [word for word in options.split(",") if word in _controllers()]
        elif kind == "cgroup2":
            v2 = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4])
    words = []
    if v2 is not None:
        enabled = " ".join(_lines(os.path.join(v2, "cgroup.controllers")))
        words.append(f"v2 at {v2} {f'with {enabled}' if enabled else 'without controllers'}")
    if v1:
        words.append(f"v1 with {' '.join(dict.fromkeys(v1))}")
    layout = "none mounted" if not words else "hybrid" if len(words) == 2 else "unified" if v2 else "v1 only"
    return ": ".join([layout, *([", and ".join(words)] if words else [])])


def _controllers() -> set[str]:
    return {line.split("\t")[0] for line in _lines("/proc/cgroups") if not line.startswith("#")}


def _lines(path: str) -> list[str]:
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read().splitlines()
    except OSError:
        return []


# --- The measurements ------------------------------------------------------------------------------------


def _measure(supervisor: LocalSupervisor) -> dict[str, Any]:
    """Median and 99th percentile of each call, in nanoseconds; or why there are none."""
    times: dict[str, dict[str, int]] = {}
    unmeasured: dict[str, str] = {}

    def attempt(names: Sequence[str], measure: Callable[[str], tuple[list[int], list[int]]]) -> None:
        try:
            with _domain(supervisor, f"doctor-{names[0]}") as domain:
                results = measure(domain)
        except (Failure, SupervisorError) as error:
            unmeasured.update(dict.fromkeys(names, str(error)))
            return
        for name, samples in zip(names, results, strict=True):
            times[name] = {
                "median_ns": percentile(samples, 50),
                "p99_ns": percentile(samples, 99),
                "rounds": len(samples),
            }

    def freeze_thaw(domain: str) -> tuple[list[int], list[int]]:
        supervisor.exec(ExecRequest(domain=domain, name="sleeper", path=program("sleep"), args=["3600"]))
        return time_freeze_thaw(supervisor, domain, ROUNDS)

    attempt(["freeze", "thaw"], freeze_thaw)
    attempt(["exec", "exec_to_event"], lambda domain: time_exec(supervisor, domain, EXECS))
    return {"times": times, "unmeasured": unmeasured}


@contextmanager
def _domain(supervisor: LocalSupervisor, name: str) -> Iterator[str]:
    supervisor.start(StartRequest(name))
    try:
        yield name
    finally:
        supervisor.stop(StopRequest(name, deadline(10)))


# --- The report ------------------------------------------------------------------------------------------


def _print(out: Printer, report: dict[str, Any]) -> None:
    out.line(f"pysup {report['version']}, Python {report['python']}, uid {report['uid']}")
    out.line(
        f"Linux {report['kernel']} on {report['architecture']}, {report['usable_cpus']} of {report['cpus']} CPUs usable"
    )
    out.say(f"cgroups: {report['cgroups']}")

    providers: list[dict[str, str]] = report["providers"]
    out.heading("What serves each need")
    notes = list(dict.fromkeys(each["reason"] for each in providers if each["reason"]))

    def mark(provider: dict[str, str]) -> str:
        return f"[{notes.index(provider['reason']) + 1}]" if provider["reason"] else ""

    rows = [(each["need"], each["choice"], each["detail"], mark(each)) for each in providers]
    out.table(("need", "picked", "by way of", "note"), rows)
    for number, note in enumerate(notes, 1):
        out.say(note, item=f"[{number}]")
    missing = [each for each in providers if each["choice"] == "none" or each["detail"] == "always 0"]
    out.heading("What is missing" if missing else "What is missing: nothing")
    for each in missing:
        consequence = CONSEQUENCES.get(each["need"], "the figure is always 0")
        out.say(f"{consequence} {mark(each)}".rstrip(), item=f"{each['need']}:")

    out.heading("What the calls take, measured now")
    labels = {
        "freeze": "freeze one sleeping process",
        "thaw": "thaw it",
        "exec": "start `true`, until it runs",
        "exec_to_event": "start `true`, until its end is reported",
    }
    rows = [
        (labels[name], out.duration(time["median_ns"]), out.duration(time["p99_ns"]), str(time["rounds"]))
        for name, time in report["times"].items()
    ]
    if rows:
        out.table(("call", "median", "p99", "rounds"), rows, right=True)
    for name, reason in report["unmeasured"].items():
        out.say(f"not measured: {reason}", item=f"{labels[name]}:")
