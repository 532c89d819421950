"""`pysup run`: one command in a domain of its own."""

from __future__ import annotations

import argparse
import errno
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pysup.api import EventStream
from pysup.cli.base import CANNOT_EXECUTE, NOT_FOUND, OWN_FAILURE, TIMED_OUT, Failure, Parser, deadline
from pysup.cli.text import Printer, ending, size
from pysup.errors import FailureError
from pysup.local import LocalSupervisor
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfileName,
    CgroupProfiles,
    ConfigureRequest,
    CycleDeltaMetrics,
    EventData,
    EventsRequest,
    ExecRequest,
    ExecUser,
    KillRequest,
    StartRequest,
    StopRequest,
    TerminateRequest,
)

EPILOG = """\
The command has a session of its own: no controlling terminal (/dev/tty) and no job control. In the
background of a terminal it reads nothing from it. Ctrl-Z stops pysup, not the command.

A second Ctrl-C kills the command and all its descendants. What the command leaves running when it
ends is killed. A summary goes to stderr: how it ended, wall time, and the CPU time and peak memory of
all its processes (without cgroup rights: the peak of the largest one).

exit status:
  the command's own, or 128 + N if signal N ended it (137 when it was out of memory), or
  124  the time-out expired
  125  pysup itself failed, for instance because a limit cannot be had here (see pysup doctor)
  126  the command could not be executed
  127  the command was not found
"""

OPTIONS = {
    "cpu_limit": "--cpu",
    "memory_limit_bytes": "--memory",
    "exec_user.uid": "--user",
    "exec_user.gid": "--user",
    "exec_user": "--user",
}
"""What sets a field of the configuration."""

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL when the time-out expires."""

PATIENCE = 5.0
"""Seconds that the kernel has to bring killed processes to their end."""

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)


def main(arguments: list[str]) -> int:
    """Runs the command; gives the status that a shell would."""
    options = _parse(arguments)
    domain = f"run-{os.getpid()}"
    os.environ.update(options.env)  # which the command inherits
    cwd = os.path.join(os.getcwd(), options.cwd)
    if not os.path.isdir(cwd):
        raise Failure(f"--cwd {options.cwd}: no such directory")
    limits = CgroupProfileConfig(cpu_limit=options.cpu, memory_limit_bytes=options.memory)
    configuration = ConfigureRequest(domain, exec_user=options.user)
    if options.cpu or options.memory:
        configuration.cgroup_profiles = CgroupProfiles(throttled=limits, unthrottled=limits)
        configuration.start_profile = CgroupProfileName.UNTHROTTLED
    request = ExecRequest(
        domain=domain,
        name="command",
        path=_find(options.command[0], os.environ.get("PATH", os.defpath), cwd),
        args=options.command[1:],
        cwd=cwd,
        stdin=None if _in_background() else sys.stdin.buffer,
        stdout=sys.stdout.buffer,
        stderr=sys.stderr.buffer,
    )
    with _signals() as signals, LocalSupervisor() as supervisor:
        try:
            supervisor.configure(configuration)
        except FailureError as error:
            raise _refused(error) from None
        supervisor.start(StartRequest(domain))
        with supervisor.events(EventsRequest(domain)) as events:
            began = time.monotonic_ns()
            try:
                supervisor.exec(request)
            except FailureError as error:
                raise _not_executed(options.command[0], request.path, error) from None
            end, timed_out = _wait(supervisor, request, events, signals, options.timeout)
            wall_ns = time.monotonic_ns() - began
        cost = supervisor.stop(StopRequest(domain, deadline(PATIENCE))).cycle_delta_metrics
    status = _status(end, timed_out)
    with suppress(OSError):  # the command's status is worth more than a summary that no one can take
        if options.json:
            _print_json(end, status, timed_out, wall_ns, cost)
        elif not options.quiet:
            _print_summary(end, timed_out, wall_ns, cost)
        sys.stderr.flush()
    if status is None:
        raise Failure("how the command ended is not known: another part of the system waited for it")
    return status


# --- The command line ------------------------------------------------------------------------------------


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        "run",
        "Run a command in a domain of its own. Its streams are those of pysup, and signals are passed\non to it.",
        usage="pysup run [OPTION ...] [--] COMMAND [ARGUMENT ...]",
        epilog=EPILOG,
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    parser.add_argument(
        "--cpu", type=_cpus, default=0.0, metavar="CPUS", help="CPU time per wall time: 0.5 is half a CPU"
    )
    parser.add_argument(
        "--memory",
        type=_bytes,
        default=0,
        metavar="SIZE",
        help="memory, with swap: 256M (K, M, G: times 1024)",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        metavar="TIME",
        help="500ms, 10s, 2m, 1h or seconds; then SIGTERM, and SIGKILL 2 s later; status 124",
    )
    parser.add_argument(
        "--user",
        type=_user,
        metavar="USER[:GROUP]",
        help="whom it runs as, names or numbers; without other groups",
    )
    parser.add_argument(
        "--env",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set in the command's environment, beside what pysup has; again for more",
    )
    parser.add_argument("--cwd", default="", metavar="DIR", help="the command's working directory")
    summary = parser.add_mutually_exclusive_group()
    summary.add_argument("--json", action="store_true", help="the summary as one JSON object")
    summary.add_argument("--quiet", action="store_true", help="no summary")
    # What follows the first "--" is the command's, or, if there was a command before it, its arguments.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    options.command += arguments[split + bool(not options.command) :]
    if not options.command:
        parser.error("no command was given")
    return options


def _cpus(text: str) -> float:
    try:
        cpus = float(text)
    except ValueError:
        cpus = 0.0
    if not 0 < cpus < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of CPUs, such as 0.5 or 2")
    return cpus


def _bytes(text: str) -> int:
    match = re.fullmatch("([0-9]+(?:[.][0-9]+)?)([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    count = int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " ")) if match else 0
    if not 0 < count < 2**64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size, such as 256M, 1.5G or 1048576")
    return count


def _seconds(text: str) -> float:
    match = re.fullmatch("([0-9]+(?:[.][0-9]+)?|[.][0-9]+)(ms|s|m|h)?", text)
    seconds = float(match[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[match[2] or "s"] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time, such as 500ms, 10s, 2m, 1h or 2.5 (s)")
    return seconds


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _user(text: str) -> ExecUser:
    import grp
    import pwd

    user, colon, group = text.partition(":")
    if not user or (colon and not group):
        raise argparse.ArgumentTypeError(f"{text!r} is not USER or USER:GROUP")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
        uid, gid = entry.pw_uid, entry.pw_gid
    except (KeyError, OverflowError):
        if not user.isdecimal():
            raise argparse.ArgumentTypeError(f"there is no user {user!r}") from None
        if not group:
            raise argparse.ArgumentTypeError(f"user {user} has no group; name one: {user}:GROUP") from None
        uid = int(user)
    if group:
        try:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise argparse.ArgumentTypeError(f"there is no group {group!r}") from None
    if max(uid, gid) >= 2**32 - 1:  # which itself means "no id" to the kernel
        raise argparse.ArgumentTypeError(f"{text!r}: an id is less than {2**32 - 1}")
    return ExecUser(uid, gid)


# --- The command -----------------------------------------------------------------------------------------


def _find(command: str, search: str, cwd: str) -> str:
    """The absolute path of `command`, as execvp(3) would find it from `cwd`."""
    if "/" in command:
        return os.path.join(cwd, command)
    forbidden = False
    for directory in search.split(":") if command else ():
        path = os.path.join(cwd, directory, command)
        if os.path.isfile(path):
            if os.access(path, os.X_OK):
                return path
            forbidden = True
    if forbidden:
        raise Failure(f"{command}: permission denied", CANNOT_EXECUTE)
    raise Failure(f"{command or repr(command)}: command not found", NOT_FOUND)


def _not_executed(command: str, path: str, error: FailureError) -> Failure:
    message = error.message or str(error)
    if error.step != "exec" or error.errno is None:
        return Failure(message)
    missing = error.errno == errno.ENOENT and not os.path.exists(path)
    reason = message.partition('": ')[2] or os.strerror(error.errno)
    return Failure(f"{command}: {reason}", NOT_FOUND if missing else CANNOT_EXECUTE)


def _in_background() -> bool:
    """Whether stdin is a terminal that listens to others. The kernel stops a reader in the background of its session,
    but the command has a session of its own, and would take away what is typed for the shell."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) != os.getpgrp()
    except (OSError, ValueError):  # no terminal, or closed
        return False


def _refused(error: FailureError) -> Failure:
    """The reason in terms of the command line."""
    message = (error.message or str(error)).removeprefix("cgroup_profiles.throttled: ")
    for field, option in OPTIONS.items():
        message = message.replace(field, option)
    return Failure(message)


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that gives the number of each signal that is to be passed on, a byte each.

    A signal that is ignored, as by nohup, stays so.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        for signo in FORWARDED:
            if signal.getsignal(signo) is not signal.SIG_IGN:
                before[signo] = signal.signal(signo, lambda *_: None)
        yield reader
    finally:
        for signo, handler in before.items():
            signal.signal(signo, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)


def _wait(
    supervisor: LocalSupervisor,
    request: ExecRequest,
    events: EventStream,
    signals: int,
    timeout: float | None,
) -> tuple[EventData, bool]:
    """Passes signals on until the process has ended; gives how it did, and whether the time-out expired."""
    end = TerminateRequest(domain=request.domain, name=request.name)
    poll = select.poll()
    poll.register(events, select.POLLIN)
    poll.register(signals, select.POLLIN)
    limit = None if timeout is None else time.monotonic() + timeout
    timed_out = interrupted = False
    while True:
        poll.poll(None if limit is None else max(min(limit - time.monotonic(), 3600), 0) * 1000)
        for signo in _read(signals):
            if signo == signal.SIGINT and interrupted:
                _kill(supervisor, request)
            else:
                interrupted |= signo == signal.SIGINT
                supervisor.send_signal(request.domain, request.name, signo)
        try:
            event = events.read(0).event
        except TimeoutError:
            pass
        else:
            if event.type == "process_termination":
                return event, timed_out
        if limit is not None and time.monotonic() >= limit:
            if timed_out:
                limit = None
                _kill(supervisor, request)
            else:
                timed_out, limit = True, time.monotonic() + GRACE
                supervisor.terminate(end)


def _read(signals: int) -> bytes:
    try:
        return os.read(signals, 4096)
    except BlockingIOError:
        return b""


def _kill(supervisor: LocalSupervisor, request: ExecRequest) -> None:
    supervisor.kill(KillRequest(domain=request.domain, name=request.name, deadline=deadline(PATIENCE)))


# --- What it came to -------------------------------------------------------------------------------------


def _status(end: EventData, timed_out: bool) -> int | None:
    if timed_out:
        return TIMED_OUT
    return end.exit_status if end.signo is None else 128 + end.signo


def _print_json(end: EventData, status: int | None, timed_out: bool, wall_ns: int, cost: CycleDeltaMetrics) -> None:
    import orjson

    summary = {
        "status": OWN_FAILURE if status is None else status,
        "cause": end.cause,
        "exit_status": end.exit_status,
        "signo": end.signo,
        "timed_out": timed_out,
        "wall_ns": wall_ns,
        **cost.to_dict(),
    }
    print(orjson.dumps(summary).decode(), file=sys.stderr)


def _print_summary(end: EventData, timed_out: bool, wall_ns: int, cost: CycleDeltaMetrics) -> None:
    duration = Printer(sys.stderr).duration
    peak = cost.domain_max_memory_usage_bytes
    print(
        f"pysup: {'timed out: ' if timed_out else ''}{ending(end)}; "
        f"wall {duration(wall_ns)}, CPU {duration(cost.domain_cpu_run_ns)}, "
        f"peak memory {size(peak) if peak else 'not known'}",
        file=sys.stderr,
    )
