"""What a supervisor can do, whichever side of a socket it is on.

    ContainerSupervisor    configure, start, stop, freeze, thaw, exit
    ProcessSupervisor      exec, terminate, kill, events
    SupervisorClient       both, and ping

and the same with Async before each name. They are Protocols: a class is one by having the methods.

A domain is *configured*, then *started*, then by turns *frozen* and *started* again, and at last *stopped*,
from where it can be started anew. Every call raises a `SupervisorError`:

- `NoSuchEntityError` if it names a domain or process that is not known;
- `InvalidStateError` if the state of the domain does not allow it (the message names the state);
- `SerdeError` if a field of the request does not fit the model (the message names the field);
- `FailureError` for everything else.

A call that raises has undone what it did.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Protocol, runtime_checkable

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

__all__ = [
    "ContainerSupervisor",
    "ProcessSupervisor",
    "SupervisorClient",
    "EventStream",
    "AsyncContainerSupervisor",
    "AsyncProcessSupervisor",
    "AsyncSupervisorClient",
    "AsyncEventStream",
]


@runtime_checkable
class EventStream(Protocol):
    """The events of one domain, oldest first. An iterator, and a context manager that closes it.

    What a slow reader has no room for is counted, and an `event_loss` event stands in its place. Iterating
    waits for the next event and ends when the stream is closed and what had arrived is read.
    """

    def __iter__(self) -> Iterator[Event]:
        """The stream itself."""

    def __next__(self) -> Event:
        """Waits for the next event. Raises StopIteration once the stream is closed and empty."""

    def __enter__(self) -> EventStream:
        """The stream itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes the stream."""

    def read(self, timeout: float | None = None) -> Event:
        """Waits for the next event, at most `timeout` seconds.

        Raises:
            TimeoutError: no event came in that time.
            EOFError: the stream is closed and empty.
        """

    def close(self) -> None:
        """Ends the stream, from any thread: a reader that waits in it is woken. Again: does nothing."""

    def fileno(self) -> int:
        """A descriptor that polls as readable while an event waits. It belongs to the stream."""


@runtime_checkable
class AsyncEventStream(Protocol):
    """As `EventStream`, for `async for` and `async with`."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """The stream itself."""

    async def __anext__(self) -> Event:
        """Waits for the next event. Raises StopAsyncIteration once the stream is closed and empty."""

    async def __aenter__(self) -> AsyncEventStream:
        """The stream itself."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Closes the stream."""

    async def read(self, timeout: float | None = None) -> Event:
        """As `EventStream.read`. A cancelled read loses no event."""

    def close(self) -> None:
        """As `EventStream.close`; it does not wait, so it can be called where nothing can be awaited."""


@runtime_checkable
class ContainerSupervisor(Protocol):
    """Domains: set up, start, stop, freeze and thaw."""

    def configure(self, request: ConfigureRequest) -> None:
        """Sets the domain's configuration, before it is started or after it is stopped.

        All of it is checked here; nothing is made yet.

        Raises:
            InvalidStateError: the domain is started or frozen.
            FailureError: an option, capability, hook or mount that cannot be had here; names the field.
        """

    def start(self, request: StartRequest) -> None:
        """Makes the domain, applies its start profile, runs its start hooks, and begins a cycle.

        Raises:
            InvalidStateError: the domain is started or frozen already.
            FailureError: a part could not be made, or a hook failed (named, with its status); all is undone.
        """

    def stop(self, request: StopRequest) -> StopResponse:
        """Kills every process of the domain, waits until they are gone, and takes the domain down.

        Works on a frozen domain. Gives what the last cycle cost.

        Raises:
            NoSuchEntityError: no such domain.
            InvalidStateError: the domain is not started.
            FailureError: the deadline passed.
        """

    def freeze(self, request: FreezeRequest) -> FreezeResponse:
        """Stops every task of the domain, returns when the kernel says that they stand, and ends the cycle.

        Gives what the cycle cost.

        Raises:
            NoSuchEntityError: no such domain.
            InvalidStateError: the domain is not running.
            FailureError: the kernel did not freeze it in time; it runs again.
        """

    def thaw(self, request: ThawRequest) -> None:
        """Applies the throttled profile, lets the domain run, and begins a cycle.

        On a domain that runs already it only begins a cycle.

        Raises:
            NoSuchEntityError: no such domain.
            InvalidStateError: the domain is not started.
        """

    def exit(self) -> None:
        """Stops every domain and ends the supervisor. Again: does nothing."""


@runtime_checkable
class ProcessSupervisor(Protocol):
    """Processes in domains: start, end, and hear of their end."""

    def exec(self, request: ExecRequest) -> None:
        """Starts a process; returns when it runs its program.

        Raises:
            NoSuchEntityError: no such domain.
            InvalidStateError: the domain is not running, or the name is in use.
            FailureError: with `errno` and the `step` that failed, such as the chdir or the execve.
        """

    def terminate(self, request: TerminateRequest) -> None:
        """Sends SIGTERM to the process's group and does not wait; for a process that has ended, does nothing.

        Raises:
            NoSuchEntityError: no such domain or process.
        """

    def kill(self, request: KillRequest) -> None:
        """Kills the process and all its descendants, and returns when they are gone.

        Works on a frozen domain. The termination event is in the queues by the time this returns. A process
        that has ended already is a success.

        Raises:
            NoSuchEntityError: no such domain or process.
            FailureError: the deadline passed. If it was past on arrival, nothing was sent.
        """

    def events(self, request: EventsRequest) -> EventStream:
        """Subscribes to the domain's events, beginning with those kept while nobody did.

        There is exactly one `process_termination` for each process.

        Raises:
            NoSuchEntityError: the domain was neither configured nor started.
        """


@runtime_checkable
class SupervisorClient(ContainerSupervisor, ProcessSupervisor, Protocol):
    """A whole supervisor: `LocalSupervisor` and `Client` are both one."""

    def ping(self) -> None:
        """Returns if the supervisor is there. Raises FailureError if it is not."""


@runtime_checkable
class AsyncContainerSupervisor(Protocol):
    """`ContainerSupervisor`, awaited."""

    async def configure(self, request: ConfigureRequest) -> None:
        """As `ContainerSupervisor.configure`."""

    async def start(self, request: StartRequest) -> None:
        """As `ContainerSupervisor.start`."""

    async def stop(self, request: StopRequest) -> StopResponse:
        """As `ContainerSupervisor.stop`."""

    async def freeze(self, request: FreezeRequest) -> FreezeResponse:
        """As `ContainerSupervisor.freeze`."""

    async def thaw(self, request: ThawRequest) -> None:
        """As `ContainerSupervisor.thaw`."""

    async def exit(self) -> None:
        """As `ContainerSupervisor.exit`."""


@runtime_checkable
class AsyncProcessSupervisor(Protocol):
    """`ProcessSupervisor`, awaited."""

    async def exec(self, request: ExecRequest) -> None:
        """As `ProcessSupervisor.exec`."""

    async def terminate(self, request: TerminateRequest) -> None:
        """As `ProcessSupervisor.terminate`."""

    async def kill(self, request: KillRequest) -> None:
        """As `ProcessSupervisor.kill`."""

    async def events(self, request: EventsRequest) -> AsyncEventStream:
        """As `ProcessSupervisor.events`: `stream = await supervisor.events(...)`."""


@runtime_checkable
class AsyncSupervisorClient(AsyncContainerSupervisor, AsyncProcessSupervisor, Protocol):
    """`SupervisorClient`, awaited."""

    async def ping(self) -> None:
        """As `SupervisorClient.ping`."""
