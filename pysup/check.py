"""Requests, checked before anything is touched: what is wrong is named, with its value and what to do.

What does not fit the model raises SerdeError, what cannot be done here FailureError.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn

from pysup._native import FDS_MAX, NAME_MAX
from pysup.errors import FailureError, SerdeError
from pysup.model import (
    CgroupProfileConfig,
    CgroupProfileName,
    ConfigureRequest,
    ExecRequest,
    ExecUser,
    Hook,
    Timestamp,
)

__all__ = [
    "Config",
    "Identity",
    "Streams",
    "configuration",
    "deadline",
    "environment",
    "name",
    "program",
    "streams",
]

_CAP_SETGID, _CAP_SETUID = 6, 7  # linux/capability.h
_FOREVER_NS = 2**62  # 146 years: what a deadline like datetime.max stands for
_FD_LAST = 2**31 - 1
_LAST_ID = 2**32 - 2  # 2^32-1 means "leave as it is" to setresuid(2)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a process runs as; None: as the supervisor."""

    uid: int | None = None
    gid: int | None = None
    drop_groups: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """What Configure has set for a domain: limits as (CPUs, bytes), None where none were given."""

    start_limits: tuple[float, int] | None = None
    thaw_limits: tuple[float, int] | None = None
    identity: Identity = Identity()
    hooks: tuple[Hook, ...] = ()


@dataclass(slots=True)
class Streams:
    """The descriptors of a process, and for each stream that needs a pump its descriptor's index and its sink."""

    fds: list[int] = field(default_factory=list)
    sinks: list[tuple[int, Any]] = field(default_factory=list)


def _fail(text: str) -> NoReturn:
    raise FailureError(text)


def name(text: object, what: str) -> str:
    """A domain's or a process's name: it becomes part of file names, and stands in lines."""
    if not isinstance(text, str):
        raise SerdeError(f"{what}: expected text, got {text!r}")
    if not text:
        _fail(f"{what} is empty")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise SerdeError(f"{what}: not Unicode text: {text!r}") from None
    if length > NAME_MAX:
        _fail(f"{what} has {length} bytes, at most {NAME_MAX} are possible: {text[:40]!r}…")
    if "/" in text or text in (".", "..") or any(char < " " or char == "\x7f" for char in text):
        _fail(f'{what} must hold no "/" and no control character and must not be "." or "..", unlike {text!r}')
    return text


def deadline(when: object) -> int:
    """The monotonic time, in ns, at which a deadline on the wall clock is over; from here on the clock may jump."""
    if not isinstance(when, datetime):
        raise SerdeError(f"deadline: expected a datetime, got {when!r}")
    try:
        left = Timestamp.of(when).unix_ns - time.time_ns()
    except ValueError as error:
        raise SerdeError(f"deadline: {error}") from None
    if left <= 0:
        _fail(f"the deadline {when.isoformat()} is past by {-left / 1e9:.3f} s; nothing was done")
    return time.monotonic_ns() + min(left, _FOREVER_NS)


def _bytes(text: object, what: str) -> bytes:
    """As the kernel takes it: paths and arguments need not be Unicode, see os.fsencode."""
    if not isinstance(text, str):
        raise SerdeError(f"{what}: expected text, got {text!r}")
    if "\0" in text:
        _fail(f"{what} holds a NUL character: {text!r}")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        raise SerdeError(f"{what}: cannot be encoded: {text!r}") from None


def environment(env: Mapping[str, str] | None, what: str = "env") -> list[bytes]:
    """`KEY=value` for each variable; None: the supervisor's own environment."""
    if env is None:
        # The dictionary below os.environb, if it is there: item by item, each name would be looked up and encoded anew.
        data: Mapping[bytes, bytes] = dict(getattr(os.environb, "_data", os.environb))
        return [key + b"=" + value for key, value in data.items()]
    if not isinstance(env, Mapping):
        raise SerdeError(f"{what}: expected a mapping of text, got {env!r}")
    for key in env:
        if isinstance(key, str) and (not key or "=" in key):
            _fail(f'{what}: the name of a variable must be neither empty nor hold a "=", unlike {key!r}')
    return [_bytes(key, what) + b"=" + _bytes(value, f"{what}[{key!r}]") for key, value in env.items()]


def program(path: str, args: Sequence[str], cwd: str | None, what: str = "") -> tuple[bytes, list[bytes], bytes]:
    """The path, argv and the working directory."""
    if isinstance(args, (str, bytes)) or not isinstance(args, Sequence):
        raise SerdeError(f"{what}args: expected a list of text, got {args!r}")
    raw = _bytes(path, f"{what}path")
    if not raw.startswith(b"/"):
        _fail(f"{what}path must be absolute, unlike {path!r}")
    directory = _bytes(cwd or "/", f"{what}cwd")
    if not directory.startswith(b"/"):
        _fail(f"{what}cwd must be absolute, unlike {cwd!r}")
    return raw, [raw, *(_bytes(arg, f"{what}args[{i}]") for i, arg in enumerate(args))], directory


def _fileno(stream: Any, what: str) -> int | None:
    """Its descriptor, or None where it has none (io.BytesIO has the method, but not the descriptor)."""
    method = getattr(stream, "fileno", None)
    if method is None:
        return None
    try:
        fd = method()
    except OSError:  # io.UnsupportedOperation
        return None
    except Exception as error:  # ValueError from a closed file; anything from a class of the caller's
        _fail(f"{what}: fileno() of {stream!r} failed: {error}")
    if not isinstance(fd, int) or not 0 <= fd <= _FD_LAST:
        _fail(f"{what}: fileno() of {stream!r} gave {fd!r}")
    return fd


def streams(request: ExecRequest, null: int) -> Streams:
    """Which descriptors the process gets; `null` stands where a stream is None or has a pump."""
    found = Streams([null, null, null])
    if request.stdin is not None:
        fd = _fileno(request.stdin, "stdin")
        if fd is None:
            _fail(f"stdin must have a file descriptor, unlike {request.stdin!r}")
        found.fds[0] = fd
    for index, what in ((1, "stdout"), (2, "stderr")):
        stream = getattr(request, what)
        if stream is None:
            continue
        fd = _fileno(stream, what)
        if fd is not None:
            found.fds[index] = fd
        elif callable(getattr(stream, "write", None)):
            found.sinks.append((index, stream))
        else:
            _fail(f"{what} must have a file descriptor or a write method, unlike {stream!r}")
    for index, file in enumerate(request.extra_files or ()):
        fd = _fileno(file, f"extra_files[{index}]")
        if fd is None:
            _fail(f"extra_files[{index}] must have a file descriptor, unlike {file!r}")
        found.fds.append(fd)
    if len(found.fds) > FDS_MAX:
        _fail(f"extra_files: {len(found.fds) - 3} files, at most {FDS_MAX - 3} are possible")
    return found


def _capable(number: int) -> bool:
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:
        for line in status:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _identity(user: ExecUser | None) -> Identity:
    if user is None or (user.uid is None and user.gid is None):
        return Identity()
    for what, number in (("uid", user.uid), ("gid", user.gid)):
        if number is not None and number > _LAST_ID:
            _fail(f"exec_user.{what} must be at most {_LAST_ID}, not {number}")
    if user.uid is not None and user.uid != os.geteuid() and not _capable(_CAP_SETUID):
        _fail(f"exec_user.uid: becoming user {user.uid} needs CAP_SETUID, which user {os.geteuid()} does not have here")
    if _capable(_CAP_SETGID):
        return Identity(user.uid, user.gid, drop_groups=True)
    if user.gid is not None and user.gid != os.getegid():
        _fail(
            f"exec_user.gid: becoming group {user.gid} needs CAP_SETGID, which user {os.geteuid()} does not have here"
        )
    extra = set(os.getgroups()) - {os.getegid()}
    if extra:
        _fail(f"exec_user: giving up the supplementary groups {sorted(extra)} needs CAP_SETGID")
    return Identity(user.uid, user.gid)


def _hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    checked: list[Hook] = []
    for index, hook in enumerate(hooks):
        what = f"additional_start_hooks[{index}]"
        name(hook.name, f"{what}.name")
        if any(other.name == hook.name for other in checked):
            _fail(f"{what}.name: there is a hook {hook.name!r} already")
        path, _, _ = program(hook.path, hook.args or (), None, f"{what}.")
        environment(hook.envs, f"{what}.envs")
        if not os.path.isfile(path):
            _fail(f"{what}.path: there is no file {hook.path!r}")
        if not os.access(path, os.X_OK):
            _fail(f"{what}.path: {hook.path!r} is not executable")
        checked.append(hook)
    return tuple(checked)


def _limits(profile: CgroupProfileConfig) -> tuple[float, int]:
    return profile.cpu_limit, profile.memory_limit_bytes


def configuration(request: ConfigureRequest) -> Config:
    """What a ConfigureRequest asks for, as far as it can be told without the domain."""
    try:
        request.to_dict()  # every type and range of the model
    except ValueError as error:  # a NaN, say
        raise SerdeError(str(error)) from None
    for what in ("mounts", "capabilities", "seccomp_filters"):
        if getattr(request, what) not in (None, []):
            _fail(f"{what}: not supported yet")
    profiles = request.cgroup_profiles
    start: tuple[float, int] | None = None
    if request.start_profile:
        if request.start_profile not in tuple(CgroupProfileName):
            known = ", ".join(f'"{one}"' for one in CgroupProfileName)
            _fail(f"start_profile must be one of {known}, not {str(request.start_profile)!r}")
        if profiles is None:
            _fail(f"start_profile: {str(request.start_profile)!r} is not defined, for there are no cgroup_profiles")
        start = _limits(getattr(profiles, str(request.start_profile)))
    return Config(
        start_limits=start,
        thaw_limits=None if profiles is None else _limits(profiles.throttled),
        identity=_identity(request.exec_user),
        hooks=_hooks(request.additional_start_hooks or ()),
    )
