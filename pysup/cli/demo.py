"""`pysup demo`: the story on live processes. Every figure it prints was measured while it ran."""

from __future__ import annotations

import mmap
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from pysup import __version__
from pysup.cli.base import Failure, Parser, deadline
from pysup.cli.measure import program, time_freeze_thaw
from pysup.cli.text import Printer, ending, percentile, size
from pysup.local import LocalSupervisor
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfiles,
    ConfigureRequest,
    CycleDeltaMetrics,
    EventsRequest,
    ExecRequest,
    FreezeRequest,
    HasFileno,
    KillRequest,
    StartRequest,
    StopRequest,
    ThawRequest,
)

BURNER = """
import mmap
page = mmap.mmap(3, 8)
count = 0
while True:
    count += 1
    page[:] = count.to_bytes(8, "little")
"""

HOG = """
held = []
while True:
    held.append(b"x" * 2**20)
"""

ROUNDS = 300
"""Freezes and thaws whose latency is drawn."""

HOG_LIMIT = 48 * 2**20
"""Bytes that the hog may have: a few times what its interpreter needs."""


def main(arguments: list[str]) -> int:
    """Tells the story."""
    Parser(
        "demo",
        "A tour of a few seconds on live processes: two domains, one of them frozen and thawed, what its\n"
        "cycles cost, how long freezing takes, an out-of-memory kill, and the events of it all.",
    ).parse_args(arguments)
    began = time.monotonic()
    with LocalSupervisor() as supervisor, ExitStack() as pages:
        demo = _Demo(supervisor, Printer(sys.stdout))
        red, blue = (pages.enter_context(demo.burner(name)) for name in ("red", "blue"))
        demo.freeze(red, blue)
        demo.cycles()
        demo.latency()
        demo.out_of_memory()
        demo.events()
        demo.end()
        demo.out.say(f"That took {time.monotonic() - began:.1f} s. `pysup doctor` tells more about this machine.")
    return 0


class _Counter:
    """The page that a burner counts on."""

    def __init__(self, page: mmap.mmap) -> None:
        self._page = page

    def read(self) -> int:
        return int.from_bytes(self._page[:], "little")

    def wait_for_change(self) -> None:
        before, patience = self.read(), time.monotonic() + 60
        while self.read() == before:
            if time.monotonic() > patience:
                raise Failure("a burner does not count")
            time.sleep(0.001)


class _Demo:
    def __init__(self, supervisor: LocalSupervisor, out: Printer) -> None:
        self.out = out
        self._supervisor = supervisor
        self._providers = {each.need: each for each in supervisor.providers()}
        self._can_limit_cpu = self._has("cpu_limit")
        out.line(f"pysup {__version__} on Linux {os.uname().release}, uid {os.geteuid()}, {os.cpu_count()} CPUs")

    def _has(self, need: str) -> bool:
        return self._providers[need].choice != "none"

    def _python(self, domain: str, name: str, code: str, *files: HasFileno) -> None:
        self._supervisor.exec(
            ExecRequest(
                domain=domain,
                name=name,
                path=sys.executable,
                args=["-I", "-S", "-c", code],
                extra_files=list(files),
            )
        )

    @contextmanager
    def burner(self, domain: str) -> Iterator[_Counter]:
        """A domain with a process that counts as fast as it can; and its counter."""
        if self._can_limit_cpu:
            quarter = CgroupProfileConfig(cpu_limit=0.25)
            self._supervisor.configure(ConfigureRequest(domain, cgroup_profiles=CgroupProfiles(throttled=quarter)))
        self._supervisor.start(StartRequest(domain))
        with open(os.memfd_create(domain), "r+b", buffering=0) as file:
            file.truncate(8)
            self._python(domain, "burner", BURNER, file)
            with mmap.mmap(file.fileno(), 8) as page:
                yield _Counter(page)

    def freeze(self, red: _Counter, blue: _Counter) -> None:
        """One counter stands still while the other runs."""
        out, supervisor, provider = self.out, self._supervisor, self._providers["freeze"]
        out.heading("1. Two domains, and one is frozen")
        out.say(
            "In each of the domains `red` and `blue` a process counts as fast as it can. "
            f"Now red is frozen, by {provider.choice} ({provider.detail}), and thawed again."
        )
        red.wait_for_change()
        blue.wait_for_change()
        rows = []

        def observe(what: str) -> int:
            before = red.read(), blue.read()
            time.sleep(0.4)
            after = red.read(), blue.read()
            rows.append((what, *(f"{now:,} (+{now - then:,})" for then, now in zip(before, after, strict=True))))
            return after[0] - before[0]

        observe("both run")
        self._first = supervisor.freeze(FreezeRequest("red")).cycle_delta_metrics
        moved = observe("red is frozen")
        supervisor.thaw(ThawRequest("red"))
        red.wait_for_change()
        observe("red is thawed")
        self._second = supervisor.freeze(FreezeRequest("red")).cycle_delta_metrics
        out.table(("0.4 s each", "red counts", "blue counts"), rows, right=True)
        if moved:
            raise Failure(f"red counted on by {moved} while it was frozen")
        out.say("While frozen, red did not count once.")

    def cycles(self) -> None:
        """What the two cycles of red cost."""
        out = self.out
        out.heading("2. What a cycle costs")
        out.say(
            "A cycle runs from start or thaw to freeze or stop. Each freeze has told what the cycle before it cost:"
        )

        def row(name: str, cost: CycleDeltaMetrics) -> tuple[str, ...]:
            share = cost.domain_cpu_run_ns / max(cost.domain_run_ns, 1)
            peak = cost.domain_max_memory_usage_bytes
            times = cost.domain_run_ns, cost.domain_cpu_run_ns, cost.service_cpu_run_ns
            return name, *map(out.duration, times), f"{share:.0%}", size(peak) if peak else "not known"

        header = ("cycle", "wall", "CPU of red", "CPU of pysup", "red's share", "peak memory")
        out.table(header, [row("start to freeze", self._first), row("thaw to freeze", self._second)], right=True)
        if self._can_limit_cpu:
            out.say("A thaw applies the throttled profile, which allows red a quarter of a CPU.")
        else:
            out.say(f"No CPU limit was set, for none can be: {self._why('cpu_limit')}.")

    def latency(self) -> None:
        """How long freezing and thawing takes."""
        out, supervisor = self.out, self._supervisor
        out.heading(f"3. How long that takes: {ROUNDS} rounds on a sleeping process")
        supervisor.start(StartRequest("bed"))
        supervisor.exec(ExecRequest(domain="bed", name="sleeper", path=program("sleep"), args=["3600"]))
        # blue would compete for the CPU.
        supervisor.freeze(FreezeRequest("blue"))
        results = time_freeze_thaw(supervisor, "bed", ROUNDS)
        supervisor.stop(StopRequest("bed", deadline(10)))
        for name, samples in zip(("freeze", "thaw"), results, strict=True):
            figures = (f"p{percent} {out.duration(percentile(samples, percent))}" for percent in (50, 90, 99))
            out.line(f"{name}: {', '.join(figures)}, longest {out.duration(max(samples))}")
            out.histogram(samples)

    def out_of_memory(self) -> None:
        """A process that takes more memory than it may."""
        out, supervisor = self.out, self._supervisor
        out.heading("4. Out of memory")
        missing = [need for need in ("memory_limit", "oom") if not self._has(need)]
        if missing:
            out.say(f"Left out: this needs {' and '.join(missing)}, missing here: {self._why(missing[0])}.")
            return
        limit = CgroupProfileConfig(memory_limit_bytes=HOG_LIMIT)
        supervisor.configure(
            ConfigureRequest(
                "hog",
                cgroup_profiles=CgroupProfiles(throttled=limit, unthrottled=limit),
                start_profile="unthrottled",
            )
        )
        supervisor.start(StartRequest("hog"))
        with supervisor.events(EventsRequest("hog")) as events:
            self._python("hog", "hog", HOG)
            event = events.read(60).event
        cost = supervisor.stop(StopRequest("hog", deadline(10))).cycle_delta_metrics
        out.say(
            f"A process that takes ever more memory had a limit of {size(HOG_LIMIT)}. Its event says: "
            f"cause {event.cause}, signal {event.signo}. "
            f"The domain's peak was {size(cost.domain_max_memory_usage_bytes)}."
        )

    def events(self) -> None:
        """Every end of a process is an event."""
        out, supervisor = self.out, self._supervisor
        out.heading("5. Every end of a process is an event")
        supervisor.start(StartRequest("green"))
        shell = program("sh")
        scripts = {
            "tidy": "exit 0",
            "sorry": "exit 3",
            "aborts": "kill -ABRT $$",
            "endless": "while :; do sleep 1; done",
        }
        began = int(time.time() * 1000)
        rows = []
        with supervisor.events(EventsRequest("green")) as events:
            for name, script in scripts.items():
                supervisor.exec(ExecRequest(domain="green", name=name, path=shell, args=["-c", script]))
            supervisor.kill(KillRequest(domain="green", name="endless", deadline=deadline(10)))
            for _ in scripts:
                event = events.read(60)
                name = event.event.name or ""
                after = max(event.timestamp_millis - began, 0)
                rows.append((f"+{after} ms", name, scripts[name], ending(event.event)))
        supervisor.stop(StopRequest("green", deadline(10)))
        out.table(("when", "process", "script", "event"), rows)

    def end(self) -> None:
        """A frozen domain can be stopped as it is."""
        out, supervisor = self.out, self._supervisor
        out.heading("6. The end")
        with supervisor.events(EventsRequest("red")) as events:
            began = time.perf_counter_ns()
            for domain in ("red", "blue"):
                supervisor.stop(StopRequest(domain, deadline(10)))
            took = time.perf_counter_ns() - began
            event = events.read(60).event
        name = signal.Signals(event.signo).name if event.signo else f"status {event.exit_status}"
        out.say(f"Both were frozen and are stopped, in {out.duration(took)}; red's burner ended by {name}.")

    def _why(self, need: str) -> str:
        provider = self._providers[need]
        return provider.reason or provider.detail
