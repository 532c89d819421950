"""What is compared: each call of pysup with its limit, and with what people use without it.

A case is a function that yields a `Case`, ready to be measured, or raises `Skip`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from harness import HERE, MODES, Build, Case, Function, Places, Program, Side, timed

import pysup
from pysup.model import (
    EventsRequest,
    ExecRequest,
    FreezeRequest,
    KillRequest,
    StartRequest,
    StopRequest,
    TerminateRequest,
    ThawRequest,
)

__all__ = ["CASES", "Skip"]

PYSUP, CAPI, LIMIT = "pysup, Python", "pysup, C", "limit"
SETTLE = 0.0002  # seconds after which a tiny process that was started sleeps


class Skip(Exception):
    """This cannot be measured here; the text says why."""


def _later() -> datetime:
    return datetime.now(timezone.utc) + timedelta(seconds=60)


@contextmanager
def _supervisor(mode: str) -> Iterator[tuple[pysup.LocalSupervisor, dict[str, str]]]:
    try:
        supervisor = pysup.LocalSupervisor(cgroups=mode)
    except pysup.SupervisorError as error:
        raise Skip(str(error)) from None
    with supervisor:
        choices = {each.need: each.choice for each in supervisor.providers()}
        kind = {"v1": "cgroup v1", "v2": "cgroup v2"}.get(mode)
        if kind and choices["freeze"] != kind:
            reason = {each.need: each.reason for each in supervisor.providers()}["freeze"]
            raise Skip(reason or f"no {kind} here")
        if mode == "auto" and "cgroup" not in choices["freeze"]:
            raise Skip("no cgroups can be had here: the same as none")
        yield supervisor, choices


def _capi(build: Build, stack: ExitStack, parts: list[str], case: str, mode: str, *more: str) -> list[Side]:
    if build.capi is None:
        return []
    argv: list[str | Path] = [build.capi, case, f"mode={mode}", f"tiny={build.tiny}", *more]
    return [stack.enter_context(Program(CAPI, parts, argv))]


def freeze(build: Build, mode: str, count: int) -> Iterator[Case]:
    """Freeze with metrics, and thaw, of sleeping processes."""
    parts = ["freeze + metrics", "thaw"]
    with ExitStack() as stack:
        supervisor, choices = stack.enter_context(_supervisor(mode))
        places = stack.enter_context(Places(mode, choices))
        supervisor.start(StartRequest("bench"))
        for index in range(count):
            request = ExecRequest(name=f"p{index}", domain="bench", path=str(build.tiny), args=["stay"], env={})
            supervisor.exec(request)
        places.make("freeze")
        words = ["freeze", *places.freezer()] if "cgroup" in choices["freeze"] else ["stop"]
        argv: list[str | Path] = [build.limit, *words, f"tiny={build.tiny}", f"n={count}", *places.stats()]
        limit = stack.enter_context(Program(LIMIT, parts, argv))
        freezing, thawing = FreezeRequest("bench"), ThawRequest("bench")
        step = Function(
            PYSUP, parts, step=lambda: timed(lambda: supervisor.freeze(freezing), lambda: supervisor.thaw(thawing))
        )
        others = [step, *_capi(build, stack, parts, "freeze", mode, f"n={count}")]
        small = count >= 100 or mode == "none"
        yield Case(
            f"{count} process{'es' if count > 1 else ''}", mode, limit, others, 10 if small else 20, 5 if small else 20
        )


def exec_to_event(build: Build, mode: str) -> Iterator[Case]:
    """A tiny static program, from the call to the event of its end."""
    parts = ["exec", "exec to event"]
    with ExitStack() as stack:
        supervisor, _ = stack.enter_context(_supervisor(mode))
        supervisor.start(StartRequest("bench"))
        events = stack.enter_context(supervisor.events(EventsRequest("bench")))
        tiny = str(build.tiny)
        request = ExecRequest(name="one", domain="bench", path=tiny, env={})

        def step() -> list[int]:
            begin = time.perf_counter_ns()
            supervisor.exec(request)
            middle = time.perf_counter_ns()
            events.read()
            return [middle - begin, time.perf_counter_ns() - begin]

        def popen() -> list[int]:
            return timed(lambda: subprocess.Popen([tiny], env={}).wait())

        def posix_spawn() -> list[int]:
            return timed(lambda: os.waitpid(os.posix_spawn(tiny, [tiny], {}), 0))

        limit = stack.enter_context(Program(LIMIT, parts, [build.limit, "exec", f"tiny={tiny}"]))
        others = [Function(PYSUP, parts, step=step), *_capi(build, stack, parts, "exec", mode)]
        if mode == "auto":
            others.append(Function("subprocess.Popen", ["exec to event"], step=popen))
            others.append(Function("os.posix_spawn", ["exec to event"], step=posix_spawn))
        yield Case("tiny program", mode, limit, others, 40, 10)


def kill_to_gone(build: Build, mode: str) -> Iterator[Case]:
    """Kill of a sleeper, until it and its descendants are gone."""
    with ExitStack() as stack:
        supervisor, _ = stack.enter_context(_supervisor(mode))
        supervisor.start(StartRequest("bench"))
        tiny = str(build.tiny)
        request = ExecRequest(name="one", domain="bench", path=tiny, args=["stay"], env={})

        def step() -> list[int]:
            supervisor.exec(request)
            time.sleep(SETTLE)
            killing = KillRequest(domain="bench", name="one", deadline=_later())
            return timed(lambda: supervisor.kill(killing))

        def popen() -> list[int]:
            process = subprocess.Popen([tiny, "stay"], env={})
            time.sleep(SETTLE)

            def end() -> None:
                process.kill()
                process.wait()

            return timed(end)

        limit = stack.enter_context(Program(LIMIT, [""], [build.limit, "kill", f"tiny={tiny}", "signal=9"]))
        others = [Function(PYSUP, [""], step=step), *_capi(build, stack, [""], "kill", mode)]
        if mode == "auto":
            others.append(Function("subprocess.Popen", [""], step=popen))
        yield Case("kill to gone", mode, limit, others, 30, 10)


def event(build: Build, mode: str) -> Iterator[Case]:
    """A signal that ends a sleeper, until its event has been read."""
    with ExitStack() as stack:
        supervisor, _ = stack.enter_context(_supervisor(mode))
        supervisor.start(StartRequest("bench"))
        events = stack.enter_context(supervisor.events(EventsRequest("bench")))
        tiny = str(build.tiny)
        request = ExecRequest(name="one", domain="bench", path=tiny, args=["stay"], env={})
        terminating = TerminateRequest(domain="bench", name="one")

        def end() -> None:
            supervisor.terminate(terminating)
            events.read()

        def step() -> list[int]:
            supervisor.exec(request)
            time.sleep(SETTLE)
            return timed(end)

        argv: list[str | Path] = [build.limit, "kill", f"tiny={tiny}", f"signal={int(signal.SIGTERM)}"]
        limit = stack.enter_context(Program(LIMIT, [""], argv))
        others = [Function(PYSUP, [""], step=step), *_capi(build, stack, [""], "event", mode)]
        yield Case("signal to event", mode, limit, others, 30, 10)


def statistics(build: Build, mode: str) -> Iterator[Case]:
    """All figures of a cycle, read once: Thaw of a running domain, psup_domain_metrics, and preads."""
    with ExitStack() as stack:
        supervisor, choices = stack.enter_context(_supervisor(mode))
        places = stack.enter_context(Places(mode, choices))
        supervisor.start(StartRequest("bench"))
        places.make("stat")
        thawing = ThawRequest("bench")
        limit = stack.enter_context(Program(LIMIT, [""], [build.limit, "stat", *places.stats()]))
        files = [word.split("=", 1)[1] for word in places.stats()]
        others: list[Side] = [Function(PYSUP, [""], step=lambda: timed(lambda: supervisor.thaw(thawing)))]
        others += _capi(build, stack, [""], "stat", mode)
        others.append(
            Function("open().read()", [""], step=lambda: timed(lambda: [Path(file).read_bytes() for file in files]))
        )
        yield Case("read statistics", mode, limit, others, 20, 50)


def domain(build: Build, mode: str) -> Iterator[Case]:
    """Start and Stop of an empty domain."""
    parts = ["start", "stop"]
    with ExitStack() as stack:
        supervisor, choices = stack.enter_context(_supervisor(mode))
        places = stack.enter_context(Places(mode, choices))
        starting = StartRequest("bench")
        argv: list[str | Path] = [build.limit, "domain", f"tiny={build.tiny}"]
        # A leaf for the first process stands in the domain's v2 cgroup.
        for kind, path in places.names("domain").items():
            argv.append(f"make={path}")
            if kind != "v2":
                argv.append(f"move={path}")
        limit = stack.enter_context(Program(LIMIT, parts, argv))

        def step() -> list[int]:
            stopping = StopRequest("bench", _later())
            return timed(lambda: supervisor.start(starting), lambda: supervisor.stop(stopping))

        others = [Function(PYSUP, parts, step=step), *_capi(build, stack, parts, "domain", mode)]
        if len(argv) == 3:
            raise Skip("without cgroups there is nothing that a domain must make")
        yield Case("domain", mode, limit, others, 30, 5)


def host(build: Build, mode: str) -> Iterator[Case]:
    """The same program started from a host of 1 GiB, and from a small one."""
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if memory < 3 << 30:
        raise Skip(f"needs 3 GiB of free memory, and there are {memory / 2**30:.1f}")
    with ExitStack() as stack:
        with _supervisor(mode):
            pass
        parts = ["pysup", "subprocess.Popen", "os.fork + exec"]
        sides = [
            stack.enter_context(Program(name, parts, [sys.executable, HERE / "hosts.py", build.tiny, mode, str(mib)]))
            for name, mib in (("small host", 0), ("1 GiB host", 1024))
        ]
        yield Case("start to end", mode, sides[0], sides[1:], 10, 5)


def importing(build: Build, mode: str) -> Iterator[Case]:
    """A new interpreter that imports one module."""

    def run(code: str) -> Callable[[], list[int]]:
        return lambda: timed(lambda: subprocess.run([sys.executable, "-I", "-c", code], check=True))

    limit = Function("nothing", [""], step=run("pass"))
    others: list[Side] = [
        Function(name, [""], step=run(f"import {name}")) for name in ("pysup", "subprocess", "asyncio")
    ]
    yield Case("python -c import", "-", limit, others, 10, 1)


_EVERY = tuple((mode,) for mode in MODES)
CASES: dict[str, tuple[Callable[..., Iterator[Case]], tuple[tuple[object, ...], ...]]] = {
    "freeze": (freeze, tuple((mode, count) for count in (1, 10, 100) for mode in MODES)),
    "exec": (exec_to_event, _EVERY),
    "kill": (kill_to_gone, _EVERY),
    "event": (event, _EVERY),
    "statistics": (statistics, _EVERY),
    "domain": (domain, _EVERY),
    "host": (host, (("auto",),)),
    "import": (importing, (("-",),)),
}
