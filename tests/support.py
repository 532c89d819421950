"""What the tests of the supervisor share."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import pathlib
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

import pysup
from pysup.model import Event, EventsRequest, ExecRequest, KillRequest, StartRequest, StopRequest

MODES = ("auto", "v2", "v1", "none")
NOBODY = 65534

# Emulated machines are 10 to 20 times slower. Time-outs here only bound what hangs; nothing is asserted of speed.
PATIENCE = 60.0


def soon(seconds: float = PATIENCE) -> datetime:
    """A deadline."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)


def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Waits for something to become true."""
    end = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not true within {seconds} s: {condition}"
        time.sleep(0.005)


class InLoop:
    """An AsyncLocalSupervisor that is called as if it were a LocalSupervisor: its loop runs in a thread."""

    def __init__(self, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        try:
            self._supervisor = self._run(self._make(**options))
        except BaseException:
            self._end()
            raise

    @staticmethod
    async def _make(**options: Any) -> pysup.AsyncLocalSupervisor:
        return pysup.AsyncLocalSupervisor(**options)

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE * 2)

    def _end(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._supervisor, name)
        if not asyncio.iscoroutinefunction(method):
            return method
        return functools.wraps(method)(lambda *args: self._run(method(*args)))

    def events(self, request: EventsRequest) -> StreamInLoop:
        return StreamInLoop(self, self._run(self._supervisor.events(request)))

    def exit(self) -> None:
        if self._thread.is_alive():
            self._run(self._supervisor.exit())

    def __enter__(self) -> InLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.exit()
        self._end()


class StreamInLoop:
    """An AsyncEventStream, likewise."""

    def __init__(self, owner: InLoop, stream: pysup.AsyncEventStream) -> None:
        self._owner = owner
        self._stream = stream

    def read(self, timeout: float | None = None) -> Event:
        return self._owner._run(self._stream.read(timeout))

    def close(self) -> None:
        self._owner._loop.call_soon_threadsafe(self._stream.close)

    def __iter__(self) -> Iterator[Event]:
        with contextlib.suppress(EOFError):
            while True:
                yield self.read()


KINDS: dict[str, Callable[..., Any]] = {"threads": pysup.LocalSupervisor, "asyncio": InLoop}
EMULATED = "QEMU" in pathlib.Path("/proc/cpuinfo").read_text()
if EMULATED or os.environ.get("PYSUP_SANITIZED"):
    # The kernel, or the C, is what is looked at there, at a tenth or a third of the speed; it is the same for both.
    del KINDS["asyncio"]


@functools.cache
def providers_of(mode: str) -> dict[str, str]:
    """What serves each need in a mode."""
    with pysup.LocalSupervisor(cgroups=mode) as supervisor:
        return {provider.need: provider.choice for provider in supervisor.providers()}


@functools.cache
def mode_problem(mode: str) -> str | None:
    """Why there is nothing to test in a mode here, or None."""
    if mode in ("v1", "v2") and providers_of(mode)["freeze"] != f"cgroup {mode}":
        return f"cgroup {mode} cannot be had here"
    if mode != "auto" and providers_of(mode) == providers_of("auto"):
        return f'"auto" is "{mode}" here'
    return None


class Driver:
    """A started domain "d" and its events, with the words that the tests are written in."""

    made: ClassVar[weakref.WeakSet[Driver]] = weakref.WeakSet()

    def __init__(self, supervisor: Any, domain: str = "d") -> None:
        Driver.made.add(self)
        self.supervisor = supervisor
        self.domain = domain
        supervisor.start(StartRequest(domain))
        self.stream = supervisor.events(EventsRequest(domain))

    @classmethod
    def let_go(cls) -> None:
        """Drops the streams of all, as a program does that has no more use for them."""
        for driver in list(cls.made):
            del driver.stream
        cls.made.clear()
        gc.collect()

    def exec(self, name: str, *argv: str, **fields: Any) -> None:
        """Starts a program."""
        self.supervisor.exec(
            ExecRequest(domain=self.domain, name=name, path=argv[0], args=list(argv[1:]), **fields),
        )

    def sh(self, name: str, script: str, **fields: Any) -> None:
        """Starts a shell."""
        self.exec(name, "/bin/sh", "-c", script, **fields)

    def event(self, timeout: float = PATIENCE) -> Event:
        """The next event."""
        return self.stream.read(timeout)

    def ended(self, name: str) -> tuple[str | None, int | None]:
        """Cause and status, or signal, of the next event, which must be of this process."""
        data = self.event().event
        assert (data.type, data.domain, data.name) == ("process_termination", self.domain, name)
        return data.cause, data.exit_status if data.signo is None else data.signo

    def quiet(self, seconds: float = 0.05) -> None:
        """Asserts that no event comes."""
        try:
            event = self.stream.read(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"an event too many: {event}")

    def kill(self, name: str, seconds: float = PATIENCE) -> None:
        """Kills a process."""
        self.supervisor.kill(KillRequest(domain=self.domain, name=name, deadline=soon(seconds)))

    def stop(self, seconds: float = PATIENCE) -> Any:
        """Stops the domain; its metrics."""
        return self.supervisor.stop(StopRequest(self.domain, soon(seconds))).cycle_delta_metrics


def cgroup_directories() -> set[str]:
    """Every cgroup that a pysup has made, on all hierarchies."""
    found: set[str] = set()
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup" in line:
            for directory, names, _ in os.walk(line.split()[4]):
                found.update(os.path.join(directory, name) for name in names if name.startswith("pysup-"))
    return found


def children() -> set[int]:
    """The pids of this process's children, the dead among them too."""
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                stat = pathlib.Path("/proc", entry, "stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                    found.add(int(entry))
    return found


def alive(pid: int | str) -> bool:
    """Whether a process lives. A zombie, which waits for the machine's init, does not."""
    try:
        return pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def possessions() -> dict[str, Any]:
    """All that a process can leave behind."""
    return {
        "descriptors": sorted(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": children(),
        "cgroups": {path for path in cgroup_directories() if f"/pysup-{os.getpid()}-" in path},
    }


def left_behind(before: dict[str, Any]) -> dict[str, Any]:
    """What this process has now and had not before. A thread that was joined may still be listed for a moment."""
    now = possessions()
    more: dict[str, Any] = {key: set(now[key]) - set(before[key]) for key in now if key != "threads"}
    more["threads"] = max(0, now["threads"] - before["threads"])
    return {key: value for key, value in more.items() if value}
