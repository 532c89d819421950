"""The supervisor in this process, for threads: every call blocks its caller alone."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from pysup import _native
from pysup._native import CoreError
from pysup.engine import Acquire, Call, Engine, Lock, Until, to_event
from pysup.errors import FailureError
from pysup.model import (
    ConfigureRequest,
    Event,
    EventsRequest,
    ExecRequest,
    FreezeRequest,
    FreezeResponse,
    KillRequest,
    StartRequest,
    StopRequest,
    StopResponse,
    TerminateRequest,
    ThawRequest,
)
from pysup.pump import Pump

__all__ = ["EventStream", "LocalSupervisor"]

T = TypeVar("T")
_LONG = 1e9  # seconds: what is longer, infinity too, need not be told apart


class EventStream:
    """The events of one domain, oldest first (see `pysup.api.EventStream`). Any thread may read or close it."""

    def __init__(self, core: _native.Subscriber) -> None:
        self._core = core
        self._lock = threading.Lock()

    def read(self, timeout: float | None = None) -> Event:
        """Waits for the next event, at most `timeout` seconds.

        Raises:
            TimeoutError: no event came in that time.
            EOFError: the stream is closed, or its supervisor has ended, and all was read.
        """
        deadline = None if timeout is None else time.monotonic_ns() + int(max(0, min(timeout, _LONG)) * 1e9)
        while True:
            with self._lock:
                end = _translate(self._core.read)
            if end is not None:
                return to_event(end)
            left = _native.FOREVER if deadline is None else deadline - time.monotonic_ns()
            if left <= 0:
                raise TimeoutError(f"no event within {timeout} s")
            _translate(self._core.wait, left)  # a signal's handler has run when this comes back early

    def close(self) -> None:
        """Ends the stream and wakes who waits in it. What was queued can still be read. Again: does nothing."""
        self._core.close()

    def fileno(self) -> int:
        """A descriptor that polls as readable while an event waits in the core. It belongs to the stream."""
        return self._core.fileno()

    def __iter__(self) -> EventStream:
        return self

    def __next__(self) -> Event:
        try:
            return self.read()
        except EOFError:
            raise StopIteration from None

    def __enter__(self) -> EventStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _translate(call: Callable[..., T], *args: int) -> T:
    try:
        return call(*args)
    except CoreError as error:
        raise FailureError(error.text, errno=error.errno) from None


def _wait(step: Acquire | Until) -> Any:
    """Blocks the thread for what a call must wait for."""
    if isinstance(step, Acquire):
        left = -1 if step.deadline is None else max(0, step.deadline - time.monotonic_ns()) / 1e9
        return step.lock.acquire(timeout=left)  # type: ignore[attr-defined]
    while True:
        left = _native.FOREVER if step.deadline is None else max(0, step.deadline - time.monotonic_ns())
        answer = step.attempt(left)
        if answer or not left:
            return answer or None


def _run(call: Call[T]) -> T:
    """Drives a call to its end."""
    try:
        step = next(call)
        while True:
            try:
                answer = _wait(step)
            except BaseException as error:
                step = call.throw(error)
            else:
                step = call.send(answer)
    except StopIteration as end:
        value: T = end.value
        return value


class LocalSupervisor(Engine):
    """Runs named processes in named domains, from this process and on this machine.

    The calls are those of `pysup.api.SupervisorClient`, which says what each means and raises; they may come from any
    thread, and those on one domain are put in a row. As a context manager it ends with `exit()`. If the process dies
    without that, its domains die with it. After a fork it belongs to the parent, and says so in the child.

    Args:
        cgroups: which to use: "auto" (v2 before v1, as each need is served), "v2", "v1", or "none": process trees and
            procfs take their place.
        cgroup_parent: in which cgroup to make those of the domains, as a path from the hierarchy's root; None: in the
            one that this process is in.
        queue_length: how many events are kept for each subscriber, and for a domain without one.
        freeze_timeout: seconds after which a freeze that the kernel does not finish is undone.

    Raises:
        ValueError: an argument is out of its range.
        FailureError: the kernel lacks what is needed at all, or a limit (descriptors, memory) was met.
    """

    def __init__(
        self,
        *,
        cgroups: str = "auto",
        cgroup_parent: str | None = None,
        queue_length: int = 1024,
        freeze_timeout: float = 1.0,
    ) -> None:
        super().__init__(
            cgroups=cgroups,
            cgroup_parent=cgroup_parent,
            queue_length=queue_length,
            freeze_timeout=freeze_timeout,
        )
        # At the interpreter's end, for who forgot exit(). It must not hold the supervisor itself.
        self._finalizer = weakref.finalize(self, self._core.close)

    def _make_lock(self) -> Lock:
        return threading.Lock()

    def _start_pump(self, pump: Pump, fd: int) -> None:
        def run() -> None:
            while pump.step():
                pass

        threading.Thread(target=run, name="pysup-pump", daemon=True).start()

    def configure(self, request: ConfigureRequest) -> None:
        """Sets a domain's configuration; see `pysup.api.ContainerSupervisor.configure`."""
        _run(self._configure(request))

    def start(self, request: StartRequest) -> None:
        """Starts a domain, which need not have been configured; see `pysup.api.ContainerSupervisor.start`."""
        _run(self._start(request))

    def stop(self, request: StopRequest) -> StopResponse:
        """Stops a domain; see `pysup.api.ContainerSupervisor.stop`."""
        return _run(self._stop(request))

    def freeze(self, request: FreezeRequest) -> FreezeResponse:
        """Freezes a domain; see `pysup.api.ContainerSupervisor.freeze`."""
        return _run(self._freeze(request))

    def thaw(self, request: ThawRequest) -> None:
        """Thaws a domain; see `pysup.api.ContainerSupervisor.thaw`."""
        _run(self._thaw(request))

    def exit(self) -> None:
        """Stops every domain and ends the supervisor; see `pysup.api.ContainerSupervisor.exit`."""
        _run(self._exit())
        self._finalizer.detach()

    def exec(self, request: ExecRequest) -> None:
        """Starts a process; see `pysup.api.ProcessSupervisor.exec`."""
        _run(self._exec(request))

    def terminate(self, request: TerminateRequest) -> None:
        """Sends SIGTERM; see `pysup.api.ProcessSupervisor.terminate`."""
        self._terminate(request)

    def kill(self, request: KillRequest) -> None:
        """Kills a process and its descendants; see `pysup.api.ProcessSupervisor.kill`."""
        _run(self._kill(request))

    def events(self, request: EventsRequest) -> EventStream:
        """Subscribes to a domain's events; see `pysup.api.ProcessSupervisor.events`."""
        return EventStream(self._subscribe(request.domain))

    def ping(self) -> None:
        """Returns while the supervisor is there; see `pysup.api.SupervisorClient.ping`."""
        self._ping()

    def send_signal(self, domain: str, name: str, signal: int) -> None:
        """Signals a process's group, as `terminate` does. A process that has ended: does nothing."""
        self._signal(domain, name, signal)

    def __enter__(self) -> LocalSupervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.exit()
