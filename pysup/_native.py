"""The one file that talks to the compiled core: return codes become exceptions, and handles become objects.

What each call does stands in csrc/include/pysup.h. All times here are nanoseconds. A call that waits takes how
long, and says by its result whether it is over, so that both a thread and an event loop can wait with it.

Handles keep alive what they need in C and are freed when Python lets go of them; `close()` is for those who
cannot leave that to chance.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

try:
    from pysup._core import ffi, lib
except ModuleNotFoundError as error:
    if error.name != "pysup._core":
        raise
    raise ImportError(
        "pysup's compiled core is not here: this is the source tree. `make install` builds it into .venv; run "
        "Python from there, in another directory than the checkout's own",
        name="pysup._core",
    ) from None

__all__ = [
    "FDS_MAX",
    "FOREVER",
    "NAME_MAX",
    "CoreError",
    "Domain",
    "Process",
    "Subscriber",
    "Supervisor",
    "Termination",
    "version",
]

FOREVER = 2**64 - 1
NAME_MAX: int = lib.PSUP_NAME_MAX
FDS_MAX: int = lib.PSUP_FDS_MAX
CGROUPS = {
    "auto": lib.PSUP_CGROUP_V1 | lib.PSUP_CGROUP_V2,
    "v2": lib.PSUP_CGROUP_V2,
    "v1": lib.PSUP_CGROUP_V1,
    "none": 0,
}

CAUSE_EXITED: int = lib.PSUP_CAUSE_EXITED
CAUSE_SIGNALED: int = lib.PSUP_CAUSE_SIGNALED
CAUSE_OOM_KILLED: int = lib.PSUP_CAUSE_OOM_KILLED
EVENT_LOSS: int = lib.PSUP_EVENT_LOSS

_EAGAIN, _EINTR, _ETIMEDOUT, _EPIPE = -11, -4, -110, -32

# No type is made lazily: two threads that made the same one at once would each have their own.
for _name in ("error", "options", "provider", "limits", "metrics", "spec", "event", "interface"):
    ffi.typeof(f"psup_{_name} *")
for _name in ("supervisor", "domain", "process", "events"):
    ffi.typeof(f"psup_{_name} **")
ffi.typeof("char[]"), ffi.typeof("char **"), ffi.typeof("int[]")
ffi.typeof("uintptr_t"), ffi.typeof("uintptr_t[]")


class CoreError(Exception):
    """A call of the core that failed: errno, the step that failed, and the reason in words."""

    def __init__(self, errno: int, step: str, text: str) -> None:
        super().__init__(text)
        self.errno = errno
        self.step = step
        self.text = text


class Provider(NamedTuple):
    """What serves a need of the supervisor on this machine."""

    need: str
    choice: str
    detail: str
    reason: str


class Termination(NamedTuple):
    """One event as the core gives it; `lost` is not 0 for a loss."""

    timestamp_ms: int
    type: int
    cause: int
    signo: int
    exit_status: int
    lost: int
    domain: str
    name: str


class Metrics(NamedTuple):
    """What a cycle cost; the names are the model's."""

    domain_cpu_run_ns: int
    domain_run_ns: int
    service_cpu_run_ns: int
    domain_max_memory_usage_bytes: int
    microvm_cpu_run_ns: int
    idle_cpu_run_ns: int
    interfaces: list[tuple[str, int, int]]


def version() -> str:
    """The version of the core."""
    return _text(lib.psup_version())


def _text(chars: Any) -> str:
    """Names are UTF-8; a message may hold a path that is not, or is cut."""
    raw: bytes = ffi.string(chars)
    return raw.decode("utf-8", "replace")


def _check(result: int, error: Any = None) -> int:
    """A count, or the exception that a negative errno stands for."""
    if result >= 0:
        return result
    if error is not None and error.code == -result:
        raise CoreError(-result, _text(error.step), _text(error.text))
    raise CoreError(-result, "", os.strerror(-result))


class Supervisor:
    """A `psup_supervisor`."""

    __slots__ = ("_ptr",)

    def __init__(self, cgroups: str, cgroup_parent: str | None, queue_length: int) -> None:
        parent = ffi.NULL if cgroup_parent is None else ffi.new("char[]", os.fsencode(cgroup_parent))
        options = ffi.new("psup_options *")
        options.size = ffi.sizeof("psup_options")
        options.cgroups = CGROUPS[cgroups]
        options.cgroup_parent = parent
        options.queue_length = queue_length
        ret, error = ffi.new("psup_supervisor **"), ffi.new("psup_error *")
        _check(lib.psup_supervisor_new(options, ret, error), error)
        self._ptr = ffi.gc(ret[0], lib.psup_supervisor_free)

    def close(self) -> None:
        """Ends the supervisor; its handles stay valid and say so. Again: does nothing."""
        lib.psup_supervisor_close(self._ptr)

    def fileno(self) -> int:
        """An eventfd that is readable when a process has ended."""
        fd: int = lib.psup_supervisor_fd(self._ptr)
        return fd

    def providers(self) -> tuple[Provider, ...]:
        """What was picked for each need."""
        ret = ffi.new("psup_provider *")
        found = []
        for need in range(lib.PSUP_NEED_COUNT):
            _check(lib.psup_supervisor_provider(self._ptr, need, ret))
            found.append(Provider(*map(_text, (ret.need, ret.choice, ret.detail, ret.reason))))
        return tuple(found)

    def check_limits(self, cpus: float, memory_bytes: int) -> None:
        """Raises if a domain could not have these limits."""
        error = ffi.new("psup_error *")
        _check(lib.psup_supervisor_check_limits(self._ptr, _limits(cpus, memory_bytes), error), error)

    def domain(self, name: str) -> Domain:
        """A new domain."""
        ret, error = ffi.new("psup_domain **"), ffi.new("psup_error *")
        try:
            _check(lib.psup_domain_new(self._ptr, name.encode(), ret, error), error)
            return Domain(self._ptr, ret[0])
        except KeyboardInterrupt:  # it came during the call: its name would be taken for ever
            if ret[0]:
                lib.psup_domain_close(ret[0])
            raise

    def spawn(self, domain: Domain | None, spec: Spec) -> Process:
        """Starts a process, in a domain or outside of all."""
        ret, error = ffi.new("psup_process **"), ffi.new("psup_error *")
        where = ffi.NULL if domain is None else domain._ptr
        try:
            _check(lib.psup_spawn(self._ptr, where, spec.ptr, ret, error), error)
            return Process(ret[0])
        except KeyboardInterrupt:  # it came during the call: no one would know of the process
            if ret[0]:
                lib.psup_process_kill(ret[0])
            raise


class Spec:
    """A `psup_spec`, with all that it points at."""

    __slots__ = ("_alive", "ptr")

    def __init__(
        self,
        name: str,
        path: bytes,
        argv: Sequence[bytes],
        envp: Sequence[bytes],
        cwd: bytes,
        fds: Sequence[int],
        uid: int | None = None,
        gid: int | None = None,
        drop_groups: bool = False,
    ) -> None:
        # All text in one block and places in it as numbers: an object of cffi for each word costs as much as the rest.
        words = [name.encode(), path, cwd, *argv, *envp]
        text = ffi.new("char[]", b"\0".join(words))
        at = int(ffi.cast("uintptr_t", text))
        places = []
        for word in words:
            places.append(at)
            at += len(word) + 1
        n = 3 + len(argv)
        vector = ffi.new("uintptr_t[]", [*places[3:n], 0, *places[n:], 0])
        numbers = ffi.new("int[]", fds)
        spec = ffi.new("psup_spec *")
        spec.size = ffi.sizeof("psup_spec")
        spec.name, spec.path, spec.cwd = text, text + (places[1] - places[0]), text + (places[2] - places[0])
        spec.argv = ffi.cast("char **", vector)
        spec.envp = ffi.cast("char **", vector + len(argv) + 1)
        spec.fds = numbers
        spec.n_fds = len(fds)
        spec.flags = (
            (0 if uid is None else lib.PSUP_SET_UID)
            | (0 if gid is None else lib.PSUP_SET_GID)
            | (lib.PSUP_DROP_GROUPS if drop_groups else 0)
        )
        spec.uid, spec.gid = uid or 0, gid or 0
        self.ptr = spec
        self._alive = (text, vector, numbers)


def _limits(cpus: float, memory_bytes: int) -> Any:
    limits = ffi.new("psup_limits *")
    limits.size = ffi.sizeof("psup_limits")
    limits.cpus = cpus
    limits.memory_bytes = memory_bytes
    return limits


class Domain:
    """A `psup_domain`. Its calls must come one at a time: they share what they answer with."""

    __slots__ = ("_error", "_metrics", "_ptr", "_supervisor")

    def __init__(self, supervisor: Any, ptr: Any) -> None:
        self._supervisor = supervisor
        self._ptr = ffi.gc(ptr, lib.psup_domain_free)
        self._error = ffi.new("psup_error *")
        self._metrics = ffi.new("psup_metrics *")
        self._metrics.size = ffi.sizeof("psup_metrics")

    def start(self, limits: tuple[float, int] | None) -> None:
        """Makes the cgroups and begins a cycle."""
        given = ffi.NULL if limits is None else _limits(*limits)
        _check(lib.psup_domain_start(self._ptr, given, self._error), self._error)

    def freeze(self, wait: int) -> Metrics | None:
        """What the cycle cost; None while the freeze is still under way."""
        result = lib.psup_domain_freeze_begin(self._ptr, wait, self._metrics, self._error)
        if result == _EAGAIN:
            return None
        _check(result, self._error)
        return self.figures()

    def thaw(self, limits: tuple[float, int] | None) -> None:
        """Lets the domain run and begins a cycle; undoes a freeze that is under way."""
        given = ffi.NULL if limits is None else _limits(*limits)
        _check(lib.psup_domain_thaw(self._ptr, given, self._error), self._error)

    def stop(self, wait: int) -> Metrics | None:
        """What the last cycle cost; None while something is still there."""
        result = lib.psup_domain_stop(self._ptr, wait, self._metrics, self._error)
        if result in (_EAGAIN, _EINTR):
            return None
        _check(result, self._error)
        return self.figures()

    def limits(self) -> tuple[float, int]:
        """CPUs and bytes of memory, as the kernel has them; 0: unlimited."""
        ret = _limits(0, 0)
        _check(lib.psup_domain_limits(self._ptr, ret))
        return ret.cpus, ret.memory_bytes

    def subscribe(self, length: int) -> Subscriber:
        """A new subscriber."""
        ret = ffi.new("psup_events **")
        _check(lib.psup_events_new(self._ptr, length, ret))
        return Subscriber(ret[0])

    def close(self) -> None:
        """Ends the domain and its subscribers; the handle says so. Again: does nothing."""
        lib.psup_domain_close(self._ptr)

    def figures(self) -> Metrics:
        """What the last freeze or stop gave."""
        m = self._metrics
        return Metrics(
            m.domain_cpu_run_ns,
            m.domain_run_ns,
            m.service_cpu_run_ns,
            m.domain_max_memory_usage_bytes,
            m.microvm_cpu_run_ns,
            m.idle_cpu_run_ns,
            [
                (_text(one.name), one.received_bytes, one.transmitted_bytes)
                for one in (m.interfaces[i] for i in range(m.n_interfaces))
            ],
        )


class Process:
    """A `psup_process`."""

    __slots__ = ("_ptr",)

    def __init__(self, ptr: Any) -> None:
        self._ptr = ffi.gc(ptr, lib.psup_process_free)

    def pid(self) -> int:
        """Its process id. It may be another's as soon as the process has ended."""
        pid: int = lib.psup_process_pid(self._ptr)
        return pid

    def signal(self, signal: int) -> None:
        """Signals its process group."""
        _check(lib.psup_process_signal(self._ptr, signal))

    def kill(self) -> None:
        """Kills it and its descendants, without waiting."""
        _check(lib.psup_process_kill(self._ptr))

    def wait(self, wait: int) -> bool:
        """Whether it has ended and, if it was killed, its descendants are gone."""
        result = lib.psup_process_wait(self._ptr, wait)
        if result in (_ETIMEDOUT, _EINTR):
            return False
        _check(result)
        return True

    def ended(self) -> Termination | None:
        """How it ended, or None while it runs."""
        ret = ffi.new("psup_event *")
        result = lib.psup_process_result(self._ptr, ret)
        if result == _EAGAIN:
            return None
        _check(result)
        return _termination(ret)


class Subscriber:
    """A `psup_events`. `read` must be called by one thread at a time."""

    __slots__ = ("_event", "_ptr")

    def __init__(self, ptr: Any) -> None:
        self._ptr = ffi.gc(ptr, lib.psup_events_free)
        self._event = ffi.new("psup_event *")

    def read(self) -> Termination | None:
        """The next event, or None when none waits: one by one, so that the descriptor tells whether more do.

        Raises:
            EOFError: closed, and all was read.
        """
        result = lib.psup_events_read(self._ptr, self._event, 1)
        if result == _EPIPE:
            raise EOFError("the event stream is closed")
        return _termination(self._event[0]) if _check(result) else None

    def wait(self, wait: int) -> bool:
        """Whether `read` has something to say."""
        result = lib.psup_events_wait(self._ptr, wait)
        if result in (_ETIMEDOUT, _EINTR):
            return False
        _check(result)
        return True

    def fileno(self) -> int:
        """Readable when `read` has something to say."""
        fd: int = lib.psup_events_fd(self._ptr)
        return fd

    def close(self) -> None:
        """Ends the subscription; what was queued can still be read."""
        lib.psup_events_close(self._ptr)


def _termination(event: Any) -> Termination:
    return Termination(
        event.timestamp_ms,
        event.type,
        event.cause,
        event.signo,
        event.exit_status,
        event.lost,
        _text(event.domain),
        _text(event.name),
    )
