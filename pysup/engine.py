"""Domains, processes, states and cycles: what every call does, but for how it waits.

A call is a generator. Where it must wait it yields what for, an `Acquire` or an `Until`, and whoever drives it answers:
`pysup.local` with a blocked thread, `pysup.aio` with an event loop. So the rules stand here once.

    configured → started ⇄ frozen → stopped, which can be started again
"""

from __future__ import annotations

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from enum import Enum
from errno import EBUSY
from typing import Any, NamedTuple, Protocol, TypeVar

from pysup import _native, check
from pysup._native import CoreError, Metrics, Provider, Termination
from pysup.check import Config
from pysup.errors import FailureError, InvalidStateError, NoSuchEntityError, SerdeError
from pysup.model import (
    ConfigureRequest,
    CycleDeltaMetrics,
    Event,
    EventData,
    ExecRequest,
    FreezeRequest,
    FreezeResponse,
    Hook,
    KillRequest,
    Logging,
    MicrovmNetworkInterfaceMetrics,
    StartRequest,
    StopRequest,
    StopResponse,
    TerminateRequest,
    ThawRequest,
)
from pysup.pump import Pump

__all__ = ["Acquire", "Call", "Engine", "Lock", "Until", "to_event"]

T = TypeVar("T")
HOOK_TIMEOUT_NS = 30 * 10**9  # a hook that takes longer has hung
HOOK_OUTPUT = 4096  # bytes of a failed hook's output that the error tells
HOOK_LAST_WORDS_NS = 10**9 // 5
EXIT_TIMEOUT_NS = 10 * 10**9
KILL_TIMEOUT_NS = 5 * 10**9
REMEMBERED = 4096  # ended processes of a domain that are still known by name


class State(Enum):
    """Where a domain stands."""

    CONFIGURED = "configured"
    STARTED = "started"
    FROZEN = "frozen"
    STOPPING = "stopping"  # a Stop whose deadline passed
    STOPPED = "stopped"


class Lock(Protocol):
    """threading.Lock, or asyncio.Lock."""

    def release(self) -> None:
        """Lets the next one in."""


class Acquire(NamedTuple):
    """Wait for a lock; the answer is whether it was had before the deadline (monotonic ns)."""

    lock: Lock
    deadline: int | None = None


class Until(NamedTuple):
    """Wait until `attempt` gives something true, which is the answer; None once the deadline (monotonic ns) is past.

    `attempt` takes for how many ns it may block.
    """

    attempt: Callable[[int], Any]
    deadline: int | None


Call = Generator["Acquire | Until", Any, T]


class Domain:
    """A domain and its processes by name."""

    __slots__ = ("config", "core", "lock", "name", "processes", "pumps", "state")

    def __init__(self, name: str, core: _native.Domain, lock: Lock) -> None:
        self.name = name
        self.core = core
        self.lock = lock  # held by every call but Terminate, Kill and Events
        self.state = State.CONFIGURED
        self.config = Config()
        self.processes: dict[str, _native.Process] = {}
        self.pumps: list[Pump] = []

    def require(self, *states: State) -> None:
        """Raises unless the domain is in one of these states."""
        if self.state not in states:
            wanted = " or ".join(state.value for state in states)
            thaw = "; thaw it first" if self.state is State.FROZEN and State.STARTED in states else ""
            raise InvalidStateError(f'domain "{self.name}" is {self.state.value}; it would have to be {wanted}{thaw}')

    def forget_old(self) -> None:
        """Keeps ended processes known by name, but not without bound."""
        if len(self.processes) < 2 * REMEMBERED:
            return
        ended = [name for name, process in self.processes.items() if process.ended()]
        for name in ended[: max(0, len(ended) - REMEMBERED)]:
            del self.processes[name]


class _Head:
    """A sink that keeps the beginning of what is written."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        """Takes all."""
        self.data += data[: HOOK_OUTPUT - len(self.data)]


def to_event(end: Termination) -> Event:
    """The model's event. `unknown` is the cause where the kernel no longer tells (see docs/behaviour.md)."""
    if end.type == _native.EVENT_LOSS:
        data = EventData(type="event_loss", domain=end.domain, size=end.lost)
    elif end.cause == _native.CAUSE_EXITED:
        data = EventData("process_termination", end.domain, end.name, "exited", None, end.exit_status)
    elif end.cause in (_native.CAUSE_SIGNALED, _native.CAUSE_OOM_KILLED):
        cause = "signaled" if end.cause == _native.CAUSE_SIGNALED else "oom_killed"
        data = EventData("process_termination", end.domain, end.name, cause, end.signo)
    else:
        data = EventData("process_termination", end.domain, end.name, "unknown")
    return Event(end.timestamp_ms, data)


def _to_metrics(metrics: Metrics) -> CycleDeltaMetrics:
    return CycleDeltaMetrics(
        *metrics[:5],
        {name: MicrovmNetworkInterfaceMetrics(received, sent) for name, received, sent in metrics.interfaces},
        metrics.idle_cpu_run_ns,
    )


def _failure(error: CoreError, prefix: str = "") -> FailureError:
    return FailureError(prefix + error.text, errno=error.errno, step=error.step or None)


class Engine(ABC):
    """All that a supervisor in this process does. How it waits is its subclass's affair."""

    def __init__(
        self,
        *,
        cgroups: str = "auto",
        cgroup_parent: str | None = None,
        queue_length: int = 1024,
        freeze_timeout: float = 1.0,
    ) -> None:
        if cgroups not in _native.CGROUPS:
            raise ValueError(f"cgroups must be one of {', '.join(_native.CGROUPS)}, not {cgroups!r}")
        if not 1 <= queue_length <= 2**20:
            raise ValueError(f"queue_length must be from 1 to {2**20}, not {queue_length!r}")
        if not 0 < freeze_timeout <= 3600:
            raise ValueError(f"freeze_timeout must be more than 0 and at most 3600 seconds, not {freeze_timeout!r}")
        self._pid = os.getpid()
        self._ending = self._ended = False
        self._freeze_ns = int(freeze_timeout * 1e9)
        self._queue_length = queue_length
        self._domains: dict[str, Domain] = {}
        # Of domains. Never held for long, so an event loop may take it too.
        self._making = threading.Lock()
        self._exiting = self._make_lock()
        if cgroup_parent is not None and "\0" in cgroup_parent:
            raise ValueError(f"cgroup_parent holds a NUL character: {cgroup_parent!r}")
        try:
            self._core = _native.Supervisor(cgroups, cgroup_parent, queue_length)
        except CoreError as error:
            raise _failure(error) from None
        try:
            self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            self._core.close()
            raise FailureError(f"cannot open /dev/null: {error.strerror}", errno=error.errno) from None

    # -- for the subclasses

    @abstractmethod
    def _make_lock(self) -> Lock:
        """A lock that `Acquire` can wait for."""

    @abstractmethod
    def _start_pump(self, pump: Pump, fd: int) -> None:
        """Sees to it that the pump steps whenever `fd` has something."""

    # -- what they all begin with

    def _alive(self) -> None:
        if os.getpid() != self._pid:
            raise FailureError(f"this supervisor belongs to process {self._pid}, which forked this one")
        if self._ending:
            raise InvalidStateError("this supervisor has ended")

    def _find(self, name: str) -> Domain:
        self._alive()
        if not isinstance(name, str):
            raise SerdeError(f"domain: expected text, got {name!r}")
        domain = self._domains.get(name)
        if domain is None:
            raise NoSuchEntityError(f'there is no domain "{name}"')
        return domain

    def _find_process(self, domain_name: str, name: str) -> tuple[Domain, _native.Process]:
        domain = self._find(domain_name)
        if not isinstance(name, str):
            raise SerdeError(f"name: expected text, got {name!r}")
        process = domain.processes.get(name)
        if process is None:
            raise NoSuchEntityError(f'there is no process "{name}" in domain "{domain_name}"')
        return domain, process

    def _find_or_make(self, name: str) -> Domain:
        self._alive()
        check.name(name, "domain")
        with self._making:
            self._alive()
            domain = self._domains.get(name)
            if domain is None:
                core = None
                try:
                    core = self._core.domain(name)
                    domain = self._domains[name] = Domain(name, core, self._make_lock())
                except CoreError as error:
                    raise _failure(error) from None
                except KeyboardInterrupt:
                    if core and name not in self._domains:
                        core.close()
                    raise
        return domain

    # -- containers

    def _configure(self, request: ConfigureRequest) -> Call[None]:
        self._alive()
        check.name(request.domain, "domain")
        config = check.configuration(request)
        profiles = request.cgroup_profiles
        for name in ("throttled", "unthrottled") if profiles else ():
            profile = getattr(profiles, name)
            try:
                self._core.check_limits(profile.cpu_limit, profile.memory_limit_bytes)
            except CoreError as error:
                raise _failure(error, f"cgroup_profiles.{name}: ") from None
        domain = self._find_or_make(request.domain)
        yield Acquire(domain.lock)
        try:
            self._alive()
            domain.require(State.CONFIGURED, State.STOPPED)
            domain.config = config
        finally:
            domain.lock.release()

    def _start(self, request: StartRequest) -> Call[None]:
        domain = self._find_or_make(request.domain)
        yield Acquire(domain.lock)
        try:
            self._alive()
            domain.require(State.CONFIGURED, State.STOPPED)
            before = domain.state
            try:
                domain.core.start(domain.config.start_limits)
                for hook in domain.config.hooks:
                    yield from self._run_hook(domain, hook)
                if domain.config.hooks:
                    domain.core.thaw(None)  # the cycle begins when the domain is ready
                domain.processes.clear()
                domain.state = State.STARTED
            except BaseException as error:  # a KeyboardInterrupt, too
                domain.state = before
                with suppress(CoreError):  # it has not been started
                    domain.core.stop(KILL_TIMEOUT_NS)
                if isinstance(error, CoreError):
                    raise _failure(error) from None
                raise
        finally:
            domain.lock.release()

    def _run_hook(self, domain: Domain, hook: Hook) -> Call[None]:
        """In the supervisor's own namespaces and cgroup; its output is told only if it fails."""
        path, argv, cwd = check.program(hook.path, hook.args or (), None)
        what = f'start hook "{hook.name}" of domain "{domain.name}"'
        said = _Head()
        try:
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise FailureError(f"{what}: cannot open a pipe: {error.strerror}", errno=error.errno) from None
        pump = Pump(read_end, said, what)
        try:
            spec = _native.Spec(
                hook.name, path, argv, check.environment(hook.envs), cwd, (self._null, write_end, write_end)
            )
            process = self._core.spawn(None, spec)
        except CoreError as error:
            pump.close()
            raise _failure(error, f"{what}: ") from None
        finally:
            os.close(write_end)
        try:
            self._start_pump(pump, read_end)
            over = yield Until(process.wait, time.monotonic_ns() + HOOK_TIMEOUT_NS)
        except BaseException:
            process.kill()
            raise
        if not over:
            process.kill()
            yield Until(process.wait, time.monotonic_ns() + KILL_TIMEOUT_NS)
        end = process.ended()
        if over and end and end.cause == _native.CAUSE_EXITED and end.exit_status == 0:
            return
        if not over:
            how = f"did not end within {HOOK_TIMEOUT_NS / 1e9:.0f} s and was killed"
        elif end and end.cause == _native.CAUSE_EXITED:
            how = f"failed with exit status {end.exit_status}"
        else:
            how = f"was killed by signal {end.signo if end else 0}"
        process.kill()  # what it has left running, too
        yield Until(process.wait, time.monotonic_ns() + KILL_TIMEOUT_NS)
        yield Until(pump.wait, time.monotonic_ns() + HOOK_LAST_WORDS_NS)
        text = bytes(said.data).decode(errors="replace").strip()
        raise FailureError(f"{what} {how}" + (f": {text}" if text else ""), step=hook.name)

    def _stop(self, request: StopRequest) -> Call[StopResponse]:
        domain = self._find(request.domain)
        until = check.deadline(request.deadline)
        if not (yield Acquire(domain.lock, until)):
            raise FailureError(f'the deadline passed while another call on domain "{domain.name}" was under way')
        try:
            self._alive()
            domain.require(State.STARTED, State.FROZEN, State.STOPPING)
            return StopResponse((yield from self._stop_domain(domain, until)))
        finally:
            domain.lock.release()

    def _stop_domain(self, domain: Domain, until: int) -> Call[CycleDeltaMetrics]:
        again = domain.state is State.STOPPING
        domain.state = State.STOPPING
        try:
            metrics = yield Until(domain.core.stop, until)
        except CoreError as error:
            if not (again and error.errno == EBUSY and error.step == "state"):
                raise _failure(error) from None
            metrics = domain.core.figures()  # a KeyboardInterrupt came just when it had stopped
        if metrics is None:
            raise FailureError(f'the deadline passed, but processes of domain "{domain.name}" are still there')
        domain.state = State.STOPPED
        # Nothing writes into them any more: they end when their sinks have taken what was left.
        pumps, domain.pumps = domain.pumps, []
        for pump in pumps:
            yield Until(pump.wait, until)
        return _to_metrics(metrics)

    def _freeze(self, request: FreezeRequest) -> Call[FreezeResponse]:
        domain = self._find(request.domain)
        yield Acquire(domain.lock)
        try:
            self._alive()
            domain.require(State.STARTED)
            try:
                metrics = yield Until(domain.core.freeze, time.monotonic_ns() + self._freeze_ns)
                if metrics is None:
                    raise FailureError(
                        f'the kernel did not freeze domain "{domain.name}" within '
                        f"{self._freeze_ns / 1e9:g} s; it runs again"
                    )
                domain.state = State.FROZEN
            except CoreError as error:
                raise _failure(error) from None
            except BaseException:  # a KeyboardInterrupt or a cancelled task, too
                domain.state = State.STARTED
                with suppress(CoreError):
                    domain.core.thaw(None)
                raise
            return FreezeResponse(_to_metrics(metrics))
        finally:
            domain.lock.release()

    def _thaw(self, request: ThawRequest) -> Call[None]:
        domain = self._find(request.domain)
        yield Acquire(domain.lock)
        try:
            self._alive()
            domain.require(State.STARTED, State.FROZEN)
            try:
                domain.core.thaw(domain.config.thaw_limits)
            except CoreError as error:
                raise _failure(error) from None
            domain.state = State.STARTED
        finally:
            domain.lock.release()

    def _exit(self) -> Call[None]:
        if self._ended or os.getpid() != self._pid:
            return
        with self._making:
            self._ending = True  # nothing new from here on, whatever other threads do
        yield Acquire(self._exiting)  # one does it, the others wait until it is done
        try:
            if not self._ended:
                yield from self._end()
        finally:
            self._exiting.release()

    def _end(self) -> Call[None]:
        until = time.monotonic_ns() + EXIT_TIMEOUT_NS
        try:
            for domain in self._domains.values():
                yield Acquire(domain.lock)
                try:
                    if domain.state in (State.STARTED, State.FROZEN, State.STOPPING):
                        yield from self._stop_domain(domain, until)
                finally:
                    domain.lock.release()
        finally:
            self._close()

    def _close(self) -> None:
        """Lets go of the core. Its handles stay valid, for another thread may be in a call."""
        self._ended = True
        for domain in self._domains.values():
            domain.core.close()
        self._core.close()
        os.close(self._null)

    # -- processes

    def _exec(self, request: ExecRequest) -> Call[None]:
        domain = self._find(request.domain)
        self._check_exec(request)
        path, argv, cwd = check.program(request.path, request.args or (), request.cwd)
        envp = check.environment(request.env)
        yield Acquire(domain.lock)
        try:
            self._alive()
            domain.require(State.STARTED)
            before = domain.processes.get(request.name)
            if before and not before.ended():
                raise InvalidStateError(
                    f'there is a process "{request.name}" in domain "{domain.name}" that has not ended'
                )
            streams = check.streams(request, self._null)
            with ExitStack() as opened:
                pumps = self._open_pumps(domain, request.name, streams, opened)
                identity = domain.config.identity
                spec = _native.Spec(
                    request.name,
                    path,
                    argv,
                    envp,
                    cwd,
                    streams.fds,
                    identity.uid,
                    identity.gid,
                    identity.drop_groups,
                )
                try:
                    process = self._core.spawn(domain.core, spec)
                except CoreError as error:
                    raise _failure(error) from None
                try:
                    for pump, read_end in pumps:
                        domain.pumps = [one for one in domain.pumps if not one.done]
                        domain.pumps.append(pump)
                        self._start_pump(pump, read_end)
                except BaseException:  # no thread could be had, say
                    process.kill()
                    raise
            domain.processes.pop(request.name, None)  # the order is that of the starts
            domain.processes[request.name] = process
            domain.forget_old()
        finally:
            domain.lock.release()

    @staticmethod
    def _check_exec(request: ExecRequest) -> None:
        check.name(request.name, "name")
        if not isinstance(request.log_config, Logging):
            raise SerdeError(f"log_config: expected a Logging, got {request.log_config!r}")
        request.log_config.to_dict()  # every type of the model
        managed = request.log_config.managed
        if managed.topic or managed.formats:
            raise FailureError("log_config.managed: not supported yet")

    def _open_pumps(
        self, domain: Domain, name: str, streams: check.Streams, opened: ExitStack
    ) -> list[tuple[Pump, int]]:
        """Pipes for what has no descriptor. The write ends are closed with `opened`, the read ends too if it fails."""
        pumps = []
        for index, sink in streams.sinks:
            try:
                read_end, write_end = os.pipe2(os.O_CLOEXEC)
            except OSError as error:
                raise FailureError(f"cannot open a pipe: {error.strerror}", errno=error.errno) from None
            opened.callback(os.close, write_end)
            pump = Pump(read_end, sink, f"{'stdout' if index == 1 else 'stderr'} of {domain.name}/{name}")
            opened.push(lambda kind, error, trace, pump=pump: pump.close() if kind else None)
            streams.fds[index] = write_end
            pumps.append((pump, read_end))
        return pumps

    def _terminate(self, request: TerminateRequest) -> None:
        self._signal(request.domain, request.name, 15)

    def _signal(self, domain_name: str, name: str, signal: int) -> None:
        if not isinstance(signal, int) or not 1 <= signal <= 64:
            raise FailureError(f"signal must be from 1 to 64, not {signal!r}")
        _, process = self._find_process(domain_name, name)
        try:
            process.signal(signal)
        except CoreError as error:
            raise _failure(error, f'cannot signal process "{name}": ') from None

    def _kill(self, request: KillRequest) -> Call[None]:
        _, process = self._find_process(request.domain, request.name)
        until = check.deadline(request.deadline)
        try:
            process.kill()
            over = yield Until(process.wait, until)
        except CoreError as error:
            raise _failure(error, f'cannot kill process "{request.name}": ') from None
        if not over:
            raise FailureError(f'the deadline passed, but process "{request.name}" or a descendant is still there')

    def _subscribe(self, domain_name: str) -> _native.Subscriber:
        domain = self._find(domain_name)
        try:
            return domain.core.subscribe(self._queue_length)
        except CoreError as error:
            raise _failure(error) from None

    def _ping(self) -> None:
        self._alive()

    # -- beyond the model

    def providers(self) -> tuple[Provider, ...]:
        """What was picked for each need on this machine, and why nothing better."""
        self._alive()
        return self._core.providers()

    def limits(self, domain: str) -> tuple[float, int]:
        """The limits in force in a domain, as the kernel rounded them: CPUs and bytes of memory; 0: unlimited."""
        return self._find(domain).core.limits()

    def fileno(self) -> int:
        """An eventfd that becomes readable when a process has ended."""
        self._alive()
        return self._core.fileno()
