"""The supervisor in this process, for asyncio: the same calls, awaited.

No thread is used for a call. The core's eventfd stands in the loop and wakes who waits for the end of a process; what
gives no notice (the last descendants of a killed process) is looked for again and again, at growing intervals. Exec
blocks the loop for the fraction of a millisecond that clone and execve take, as asyncio's own subprocesses do.
"""

from __future__ import annotations

import asyncio
import os
import time
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

__all__ = ["AsyncEventStream", "AsyncLocalSupervisor"]

T = TypeVar("T")
_FIRST_LOOK, _LAST_LOOK = 0.0002, 0.02  # seconds between two looks


class AsyncEventStream:
    """The events of one domain, oldest first (see `pysup.api.AsyncEventStream`), read in the loop."""

    def __init__(self, core: _native.Subscriber) -> None:
        self._core = core
        self._reading = asyncio.Lock()

    async def read(self, timeout: float | None = None) -> Event:
        """Waits for the next event, at most `timeout` seconds. A cancelled read loses no event.

        Raises:
            TimeoutError: no event came in that time.
            EOFError: the stream is closed, or its supervisor has ended, and all was read.
        """
        if not self._reading.locked():  # what is there is had without waiting, however short the time
            event = self._take()
            if event is not None:
                return event
        try:
            return await asyncio.wait_for(self._next(), timeout)
        except asyncio.TimeoutError:  # another class before Python 3.11
            raise TimeoutError(f"no event within {timeout} s") from None

    def _take(self) -> Event | None:
        try:
            end = self._core.read()
        except CoreError as error:
            raise FailureError(error.text, errno=error.errno) from None
        return None if end is None else to_event(end)

    async def _next(self) -> Event:
        async with self._reading:
            while True:
                event = self._take()
                if event is not None:
                    return event
                await _readable(self._core.fileno())

    def close(self) -> None:
        """Ends the stream and wakes who waits in it. What was queued can still be read. Again: does nothing."""
        self._core.close()

    def __aiter__(self) -> AsyncEventStream:
        return self

    async def __anext__(self) -> Event:
        try:
            return await self._next()
        except EOFError:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> AsyncEventStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _readable(fd: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(fd)


class AsyncLocalSupervisor(Engine):
    """`pysup.LocalSupervisor` for asyncio: the same arguments and calls, to be used in one event loop.

    A call that is cancelled while it waits leaves the domain in a state that it names: a Stop goes on where it was when
    it is called again, a Freeze is undone, a Kill has been sent.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    def _make_lock(self) -> Lock:
        return asyncio.Lock()

    def _start_pump(self, pump: Pump, fd: int) -> None:
        loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

        # Before it is closed: a fork of the host would keep the closed descriptor in the loop's epoll set.
        pump.on_end = lambda: loop.remove_reader(fd)
        loop.add_reader(fd, pump.step)

    def _attach(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            loop.add_reader(self._core.fileno(), self._on_news)
        elif self._loop is not loop:
            raise FailureError("this supervisor is in use in another event loop")
        return loop

    def _on_news(self) -> None:
        try:
            os.eventfd_read(self._core.fileno())
        except BlockingIOError:
            return
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _resolve(waiter)

    async def _news(self, seconds: float) -> None:
        """Until something has changed, or for so long."""
        loop = self._attach()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.add(waiter)
        timer = loop.call_later(seconds, _resolve, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiters.discard(waiter)

    async def _wait(self, step: Acquire | Until) -> Any:
        if isinstance(step, Acquire):
            left = None if step.deadline is None else max(0, step.deadline - time.monotonic_ns()) / 1e9
            try:
                return await asyncio.wait_for(step.lock.acquire(), left)  # type: ignore[attr-defined]
            except asyncio.TimeoutError:
                return False
        pause = _FIRST_LOOK
        while True:
            answer = step.attempt(0)
            left = 1e9 if step.deadline is None else (step.deadline - time.monotonic_ns()) / 1e9
            if answer or left <= 0:
                return answer or None
            await self._news(min(pause, left))
            pause = min(pause * 2, _LAST_LOOK)

    async def _run(self, call: Call[T]) -> T:
        try:
            step = next(call)
            while True:
                try:
                    answer = await self._wait(step)
                except BaseException as error:
                    step = call.throw(error)
                else:
                    step = call.send(answer)
        except StopIteration as end:
            value: T = end.value
            return value

    async def configure(self, request: ConfigureRequest) -> None:
        """As `pysup.LocalSupervisor.configure`."""
        await self._run(self._configure(request))

    async def start(self, request: StartRequest) -> None:
        """As `pysup.LocalSupervisor.start`."""
        await self._run(self._start(request))

    async def stop(self, request: StopRequest) -> StopResponse:
        """As `pysup.LocalSupervisor.stop`."""
        return await self._run(self._stop(request))

    async def freeze(self, request: FreezeRequest) -> FreezeResponse:
        """As `pysup.LocalSupervisor.freeze`."""
        return await self._run(self._freeze(request))

    async def thaw(self, request: ThawRequest) -> None:
        """As `pysup.LocalSupervisor.thaw`."""
        await self._run(self._thaw(request))

    async def exit(self) -> None:
        """As `pysup.LocalSupervisor.exit`."""
        await self._run(self._exit())

    async def exec(self, request: ExecRequest) -> None:
        """As `pysup.LocalSupervisor.exec`."""
        await self._run(self._exec(request))

    async def terminate(self, request: TerminateRequest) -> None:
        """As `pysup.LocalSupervisor.terminate`."""
        self._terminate(request)

    async def kill(self, request: KillRequest) -> None:
        """As `pysup.LocalSupervisor.kill`."""
        await self._run(self._kill(request))

    async def events(self, request: EventsRequest) -> AsyncEventStream:
        """As `pysup.LocalSupervisor.events`."""
        return AsyncEventStream(self._subscribe(request.domain))

    async def ping(self) -> None:
        """As `pysup.LocalSupervisor.ping`."""
        self._ping()

    async def send_signal(self, domain: str, name: str, signal: int) -> None:
        """As `pysup.LocalSupervisor.send_signal`."""
        self._signal(domain, name, signal)

    def _close(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._core.fileno())
        super()._close()

    async def __aenter__(self) -> AsyncLocalSupervisor:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self.exit()
