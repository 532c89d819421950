"""The supervisor's data model: every message, its fields, and its form in JSON.

Each message is a slotted dataclass. Its attributes have the names of the JSON keys, and the annotations are
the only description of the wire form: `to_dict` and `from_dict` follow a plan that is derived from them once
for each class, on first use. docs/model.md tells the rules, and where they differ from Go's.

    >>> KillRequest(domain="d", name="n", deadline=Timestamp.from_unix_ns(0)).to_json()
    b'{"name":"n","domain":"d","deadline":"1970-01-01T00:00:00Z"}'
    >>> Event.from_json(b'{"timestamp_millis": 1, "event": {"signo": "x"}}')
    Traceback (most recent call last):
    pysup.errors.SerdeError: serde: event.signo: expected an integer, got "x"

Constructors do not check their arguments, as in Go; writing a message does.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone, tzinfo
from enum import Enum, IntEnum
from typing import Annotated, Any, ClassVar, Protocol, SupportsIndex, TypeAlias, TypeVar

from pysup.errors import ErrorKind, SerdeError, StringEnum, SupervisorError, describe, parse_json

__all__ = [
    "StartRequest",
    "ConfigureRequest",
    "MountType",
    "Mount",
    "DriveMount",
    "BindMount",
    "Capabilities",
    "CgroupProfileName",
    "CgroupProfiles",
    "CgroupProfileConfig",
    "ExecUser",
    "Hook",
    "ExecRequest",
    "Logging",
    "ManagedLogging",
    "ManagedLoggingTopic",
    "ManagedLoggingFormat",
    "TerminateRequest",
    "KillRequest",
    "StopRequest",
    "StopResponse",
    "FreezeRequest",
    "FreezeResponse",
    "ThawRequest",
    "CycleDeltaMetrics",
    "MicrovmNetworkInterfaceMetrics",
    "EventsRequest",
    "Event",
    "EventData",
    "ProcessTermination",
    "ErrorKind",
    "SupervisorError",
    "Timestamp",
    "Message",
    "HasFileno",
    "Writer",
    "I32",
    "U32",
    "U64",
]

# --- What fields are made of -----------------------------------------------------------------------------


I32: TypeAlias = Annotated[int, range(-(2**31), 2**31)]
"""An int that fits 32 bits with a sign."""
U32: TypeAlias = Annotated[int, range(2**32)]
"""An int that fits 32 bits."""
U64: TypeAlias = Annotated[int, range(2**64)]
"""An int that fits 64 bits; it never goes through a float."""

# Metadata of a field. Where its value is empty, the key is left out (Go: omitempty). Empty is None for a
# field that may be None; for any other it is zero, or no elements.
_OMIT_EMPTY = {"omit_empty": True}
# The field stays in the process: it is neither written nor read.
_LOCAL = {"local": True}


class HasFileno(Protocol):
    """Anything that stands for an open file descriptor: a file, a pipe end, a socket."""

    def fileno(self) -> int:
        """The descriptor's number."""


class Writer(Protocol):
    """Anything that output can be written to."""

    def write(self, data: bytes, /) -> object:
        """Takes `data`; what it returns is ignored."""


class Timestamp(datetime):
    """A `datetime` that also has nanoseconds, so that a deadline survives a round trip digit by digit.

    It is a datetime wherever one is wanted. The `nanosecond` takes part in comparisons, pickles and copies;
    `replace` keeps it (unless the microsecond is replaced), and so do `astimezone` and adding or subtracting
    a timedelta. The difference of two timestamps is a plain timedelta, in which it does not count.
    """

    __slots__ = ("_nanosecond",)
    _nanosecond: int

    def __new__(
        cls,
        year: SupportsIndex,
        month: SupportsIndex,
        day: SupportsIndex,
        hour: SupportsIndex = 0,
        minute: SupportsIndex = 0,
        second: SupportsIndex = 0,
        microsecond: SupportsIndex = 0,
        tzinfo: tzinfo | None = None,
        *,
        fold: int = 0,
        nanosecond: int = 0,
    ) -> Timestamp:
        if not 0 <= nanosecond <= 999:
            raise ValueError("nanosecond must be in 0..999")
        self = super().__new__(cls, year, month, day, hour, minute, second, microsecond, tzinfo, fold=fold)
        self._nanosecond = nanosecond
        return self

    @classmethod
    def of(cls, value: datetime, nanosecond: int | None = None) -> Timestamp:
        """`value` as a Timestamp, with `nanosecond` or else its own.

        Raises:
            ValueError: `value` is naive: it does not say which instant it means.
        """
        if value.utcoffset() is None:
            raise ValueError("a naive datetime: it has no time zone")
        return cls._with(value, _nanosecond(value) if nanosecond is None else nanosecond)

    @classmethod
    def from_unix_ns(cls, unix_ns: int, tz: tzinfo = timezone.utc) -> Timestamp:
        """The instant `unix_ns` nanoseconds after the epoch (as `time.time_ns` counts), shown in zone `tz`.

        Raises:
            OverflowError: the year is outside 1..9999.
        """
        micros, nanosecond = divmod(unix_ns, 1000)
        return cls.of((_EPOCH + timedelta(microseconds=micros)).astimezone(tz), nanosecond)

    @classmethod
    def from_rfc3339(cls, text: str) -> Timestamp:
        """The time that `text` tells; digits beyond the nanosecond are dropped.

        Raises:
            ValueError: `text` is not RFC 3339, or its year is 0000, which datetime does not have.
        """
        match = re.fullmatch(_RFC3339, text)
        if match is None:
            raise ValueError("not an RFC 3339 time")
        *date_and_time, fraction, sign, hours, minutes = match.groups()
        nanoseconds = int((fraction or "")[:9].ljust(9, "0"))
        zone = timezone.utc
        if sign is not None:
            if int(hours) > 23 or int(minutes) > 59:
                raise ValueError("the zone offset is out of range")
            offset = timedelta(hours=int(hours), minutes=int(minutes))
            if offset:
                zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = map(int, date_and_time)
        microsecond, nanosecond = divmod(nanoseconds, 1000)
        return cls(year, month, day, hour, minute, second, microsecond, zone, nanosecond=nanosecond)

    def to_rfc3339(self) -> str:
        """RFC 3339 as Go prints it: no trailing zeros, `Z` for offset zero, offsets cut to whole minutes.

        Raises:
            ValueError: the time is naive.
        """
        offset = self.utcoffset()
        if offset is None:
            raise ValueError("a naive datetime: it has no time zone")
        day = f"{self.year:04d}-{self.month:02d}-{self.day:02d}"
        text = f"{day}T{self.hour:02d}:{self.minute:02d}:{self.second:02d}"
        if nanoseconds := self.microsecond * 1000 + self._nanosecond:
            text += f".{nanoseconds:09d}".rstrip("0")
        if not offset:
            return text + "Z"
        hours, minutes = divmod(abs(offset) // timedelta(minutes=1), 60)
        sign = "-" if offset <= -timedelta(minutes=1) else "+"
        return f"{text}{sign}{hours:02d}:{minutes:02d}"

    @property
    def nanosecond(self) -> int:
        """Nanoseconds beyond the microsecond, 0..999."""
        return self._nanosecond

    @property
    def unix_ns(self) -> int:
        """Nanoseconds since the epoch, exactly. Raises TypeError if the time is naive."""
        since: timedelta = self - _EPOCH
        return since // timedelta(microseconds=1) * 1000 + self._nanosecond

    def replace(self, *args: Any, nanosecond: int | None = None, **kwargs: Any) -> Timestamp:
        """As `datetime.replace`, with `nanosecond` too; a new microsecond resets it."""
        if nanosecond is None:
            nanosecond = 0 if len(args) > 6 or "microsecond" in kwargs else self._nanosecond
        return self._with(self._plain().replace(*args, **kwargs), nanosecond)

    __replace__ = replace  # what copy.replace calls, from Python 3.13 on

    def astimezone(self, tz: tzinfo | None = None) -> Timestamp:
        """The same instant in another zone."""
        return self._with(self._plain().astimezone(tz), self._nanosecond)

    def __add__(self, other: timedelta) -> Timestamp:
        moved = self._plain().__add__(other)
        return moved if moved is NotImplemented else self._with(moved, self._nanosecond)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        moved = self._plain().__sub__(other)
        return self._with(moved, self._nanosecond) if isinstance(moved, datetime) else moved

    @classmethod
    def _with(cls, value: datetime, nanosecond: int) -> Timestamp:
        day = value.year, value.month, value.day
        time = value.hour, value.minute, value.second, value.microsecond
        return cls(*day, *time, value.tzinfo, fold=value.fold, nanosecond=nanosecond)

    def _plain(self) -> datetime:
        # datetime's own methods forget the fold of a subclass, so they are called on this.
        return datetime.combine(self.date(), self.timetz())

    def _same_micros(self, other: object) -> bool:
        return datetime.__eq__(self, other) is True

    def __eq__(self, other: object) -> bool:
        return self._nanosecond == _nanosecond(other) if self._same_micros(other) else super().__eq__(other)

    def __ne__(self, other: object) -> bool:  # datetime has its own, which knows no nanoseconds
        return not self == other

    # Equal times have equal nanoseconds, so the hash need not know them; and it has to be datetime's, because
    # a Timestamp without any equals the datetime.
    __hash__ = datetime.__hash__

    def __lt__(self, other: Any) -> bool:
        return self._nanosecond < _nanosecond(other) if self._same_micros(other) else super().__lt__(other)

    def __le__(self, other: Any) -> bool:
        return self._nanosecond <= _nanosecond(other) if self._same_micros(other) else super().__le__(other)

    def __gt__(self, other: Any) -> bool:
        return self._nanosecond > _nanosecond(other) if self._same_micros(other) else super().__gt__(other)

    def __ge__(self, other: Any) -> bool:
        return self._nanosecond >= _nanosecond(other) if self._same_micros(other) else super().__ge__(other)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, nanosecond={self._nanosecond})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self)._with, (self._plain(), self._nanosecond)


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_RFC3339 = (
    "([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:[.]([0-9]+))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)


def _nanosecond(value: object) -> int:
    return value._nanosecond if isinstance(value, Timestamp) else 0


# --- From annotations to JSON and back -------------------------------------------------------------------

_M = TypeVar("_M", bound="Message")


@dataclass(slots=True, eq=False, repr=False)
class Message:
    """What every message can do.

    Comparing and printing are here, once, not generated for every class: that halves the time of the import.
    """

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, each.name) == getattr(other, each.name) for each in fields(self))

    __hash__ = None  # type: ignore[assignment]  # a message can be changed

    def __repr__(self) -> str:
        pairs = (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self))
        return f"{type(self).__qualname__}({', '.join(pairs)})"

    def to_dict(self) -> dict[str, Any]:
        """The wire form as dicts, lists, str, int, float and None, in the order of the fields.

        Raises:
            SerdeError: a field holds what cannot be sent: another type, an integer out of range, a float that
                is not finite, text that is not Unicode, a time without a zone. The message begins with the
                field's path.
        """
        cls = type(self)
        try:
            return _plan(cls).encode(self)
        except _Misfit as misfit:
            raise misfit.error(cls) from None

    def to_json(self) -> bytes:
        """`to_dict` as UTF-8 JSON without white space. Raises what `to_dict` raises."""
        import orjson  # here, not above: it costs as much as the rest of this module

        return orjson.dumps(self.to_dict())

    @classmethod
    def from_dict(cls: type[_M], data: object) -> _M:
        """The message in `data`, which is what a JSON reader gave.

        Unknown keys are ignored. A missing key or a null is the zero value of its field: None where the field
        may be None, else "", 0, an empty list, a message of zero values, or the first instant of year 1. A
        null for the whole is a message of zero values.

        Raises:
            SerdeError: a value does not fit its field. The message begins with the field's path.
        """
        try:
            return _plan(cls).decode({} if data is None else data)  # type: ignore[no-any-return]
        except _Misfit as misfit:
            raise misfit.error(cls) from None

    @classmethod
    def from_json(cls: type[_M], data: bytes | str) -> _M:
        """The message in a JSON text. As `from_dict`; text that is not JSON is a `SerdeError` too."""
        return cls.from_dict(parse_json(data))


class _Misfit(Exception):
    """A value that does not fit. Each level that it passes on its way out puts its key before the path."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.path = ""

    def below(self, key: str) -> _Misfit:
        """Puts `key` before the path."""
        self.path = f"{key}.{self.path}" if self.path[:1] not in ("", "[") else key + self.path
        return self

    def error(self, cls: type[Message]) -> SerdeError:
        """The error for whoever called `cls`."""
        return SerdeError(f"{self.path or cls.__name__}: {self.text}")


def _expected(what: str, value: object) -> _Misfit:
    return _Misfit(f"expected {what}, got {describe(value)}")


class _Codec:
    """How values of one type are written, how read (never from null), and what stands for a missing one."""

    __slots__ = ("decode", "encode", "optional", "zero")

    def __init__(
        self,
        encode: Callable[[Any], Any],
        decode: Callable[[Any], Any],
        zero: Callable[[], Any],
        optional: bool = False,
    ) -> None:
        self.encode = encode
        self.decode = decode
        self.zero = zero
        self.optional = optional


class _Plan:
    """The codec of one message class."""

    __slots__ = ("cls", "reads", "tag", "writes")

    def __init__(self, cls: type[Message]) -> None:
        self.cls = cls
        self.tag: str | None = getattr(cls, "_tag", None)
        self.reads: list[tuple[str, str, Callable[[Any], Any], Callable[[], Any]]] = []
        self.writes: list[tuple[str, str, Callable[[Any], Any], bool, bool]] = []
        hints = typing.get_type_hints(cls, include_extras=True)
        for each in fields(cls):
            if "local" in each.metadata:
                continue
            codec = _codec(hints[each.name])
            key = each.metadata.get("key", each.name)
            self.reads.append((each.name, key, codec.decode, codec.zero))
            self.writes.append((each.name, key, codec.encode, "omit_empty" in each.metadata, codec.optional))

    def encode(self, message: Any) -> dict[str, Any]:
        if not isinstance(message, self.cls):
            raise _expected(self.cls.__name__, message)
        out: dict[str, Any] = {} if self.tag is None else {"type": self.tag}
        key = ""
        try:
            for name, key, encode, omit_empty, optional in self.writes:
                value = getattr(message, name)
                if value is None and omit_empty:
                    continue
                value = encode(value)
                if value or not omit_empty or optional:
                    out[key] = value
        except _Misfit as misfit:
            misfit.below(key)
            raise
        return out

    def decode(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise _expected("an object", data)
        if self.tag is not None and data.get("type") not in (None, self.tag):
            raise _expected(f'"{self.tag}"', data["type"]).below("type")
        values = {}
        key = ""
        try:
            for name, key, decode, zero in self.reads:
                value = data.get(key)
                values[name] = zero() if value is None else decode(value)
        except _Misfit as misfit:
            misfit.below(key)
            raise
        return self.cls(**values)


_plans: dict[type[Message], _Plan] = {}


def _plan(cls: type[Message]) -> _Plan:
    plan = _plans.get(cls)
    if plan is None:  # two threads may both come here: their plans are the same
        plan = _plans[cls] = _Plan(cls)
    return plan


def _codec(hint: Any) -> _Codec:
    """The codec for one annotation. Only the shapes that occur in this module."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _integer(hint.__metadata__[0])
    if origin is list:
        return _list(_codec(args[0]))
    if origin is Mapping:
        return _map(_codec(args[1]))
    if origin in (typing.Union, types.UnionType):
        rest = tuple(arg for arg in args if arg is not type(None))
        if len(rest) < len(args):
            inner = _codec(typing.Union[rest])  # noqa: UP007 - built at run time
            return _Codec(
                lambda value: None if value is None else inner.encode(value),
                inner.decode,
                lambda: None,
                optional=True,
            )
        if str in rest:
            return _enum(next(arg for arg in rest if arg is not str))
        return _tagged({arg._tag: arg for arg in rest})
    if origin is None and isinstance(hint, type) and issubclass(hint, Message):
        # Looked up when called: a plan is made when it is first used, not when one that names it is.
        return _Codec(
            lambda value: _plan(hint).encode(value),
            lambda value: _plan(hint).decode(value),
            lambda: _plan(hint).decode({}),
        )
    return {
        str: _Codec(_text, _text, str),
        float: _Codec(_float, _float, float),
        datetime: _Codec(_write_time, _read_time, lambda: Timestamp(1, 1, 1, tzinfo=timezone.utc)),
    }[hint]


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _expected("a string", value)
    text = value if type(value) is str else str.__str__(value)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _Misfit(f"{describe(text)} is not Unicode text") from None
    return text


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _expected("a number", value)
    try:
        number = float.__float__(value) if isinstance(value, float) else float(int.__int__(value))
    except OverflowError:
        number = float("inf")
    if number - number != 0:  # infinite or not a number
        raise _expected("a finite number", value)
    return number


def _write_time(value: Any) -> str:
    if not isinstance(value, datetime):
        raise _expected("a datetime with a time zone", value)
    try:
        return (value if isinstance(value, Timestamp) else Timestamp.of(value)).to_rfc3339()
    except ValueError as error:
        raise _Misfit(str(error)) from None


def _read_time(value: Any) -> Timestamp:
    try:
        if isinstance(value, str):
            return Timestamp.from_rfc3339(value)
        if isinstance(value, datetime):
            return Timestamp.of(value)
    except ValueError as error:
        raise _Misfit(f"{describe(value)}: {error}") from None
    raise _expected("a time", value)


def _integer(allowed: range) -> _Codec:
    low, high = allowed[0], allowed[-1]

    def check(value: Any) -> int:
        if type(value) is not int:
            if isinstance(value, bool) or not isinstance(value, int):
                raise _expected("an integer", value)
            value = int.__int__(value)
        if low <= value <= high:
            return value  # type: ignore[no-any-return]
        raise _Misfit(f"{describe(value)} is not in {low}..{high}")

    return _Codec(check, check, int)


def _enum(enum: type[Enum]) -> _Codec:
    members = {member.value: member for member in enum}

    def decode(value: Any) -> Any:
        text = _text(value)
        return members.get(text, text)

    return _Codec(_text, decode, str)


def _list(item: _Codec) -> _Codec:
    def each(convert: Callable[[Any], Any], values: Any) -> list[Any]:
        if not isinstance(values, (list, tuple)):
            raise _expected("an array", values)
        out: list[Any] = []
        try:
            for value in values:
                out.append(convert(value))
        except _Misfit as misfit:
            misfit.below(f"[{len(out)}]")
            raise
        return out

    def decode(value: Any) -> Any:
        return item.zero() if value is None else item.decode(value)

    return _Codec(lambda values: each(item.encode, values), lambda values: each(decode, values), list)


def _map(item: _Codec) -> _Codec:
    def each(convert: Callable[[Any], Any], values: Any) -> dict[str, Any]:
        if not isinstance(values, Mapping):
            raise _expected("an object", values)
        out = {}
        key = None
        try:
            for key, value in values.items():
                out[_text(key)] = convert(value)
        except _Misfit as misfit:
            misfit.below(f"[{describe(key)}]")
            raise
        return out

    def decode(value: Any) -> Any:
        return item.zero() if value is None else item.decode(value)

    return _Codec(lambda values: each(item.encode, values), lambda values: each(decode, values), dict)


def _tagged(classes: dict[str, type[Message]]) -> _Codec:
    """A union of messages that a `type` key tells apart."""
    names = " or ".join(cls.__name__ for cls in classes.values())
    tags = " or ".join(f'"{tag}"' for tag in classes)

    def encode(value: Any) -> Any:
        for cls in classes.values():
            if isinstance(value, cls):
                return _plan(cls).encode(value)
        raise _expected(names, value)

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _expected("an object", value)
        tag = value.get("type")
        if not isinstance(tag, str) or tag not in classes:
            raise _expected(tags, tag).below("type")
        return _plan(classes[tag]).decode(value)

    def zero() -> Any:
        raise _expected(names, None)

    return _Codec(encode, decode, zero)


# --- Configuring a domain --------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class StartRequest(Message):
    """Start a domain (model: `StartRequest`)."""

    domain: str


class MountType(IntEnum):
    """The two kinds of mount (model: `MountType`). On the wire they are the texts "drive" and "bind"."""

    DRIVE = 1
    BIND = 2


@dataclass(slots=True, eq=False, repr=False)
class DriveMount(Message):
    """Mount a file system (model: `DriveMount`; wire: also `"type": "drive"`).

    Attributes:
        source: the block device, or what else the file system mounts.
        destination: where, within the domain's root.
        fs_type: its type, as in /proc/filesystems.
        options: mount options, as `mount -o` takes them.
        chowner: uid and gid that are to own the mount's root; empty: unchanged.
        chmode: permission bits of the mount's root; 0: unchanged.
    """

    source: str = field(default="", metadata=_OMIT_EMPTY)
    destination: str = field(default="", metadata=_OMIT_EMPTY)
    fs_type: str = field(default="", metadata=_OMIT_EMPTY)
    options: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    chowner: list[U32] = field(default_factory=list, metadata=_OMIT_EMPTY)
    chmode: U32 = field(default=0, metadata=_OMIT_EMPTY)

    mount_type: ClassVar[MountType] = MountType.DRIVE
    _tag: ClassVar[str] = "drive"


@dataclass(slots=True, eq=False, repr=False)
class BindMount(Message):
    """Show a file or directory in another place (model: `BindMount`; wire: also `"type": "bind"`).

    Attributes:
        source: what, in the parent's mount namespace.
        destination: where, within the domain's root.
        options: mount options, as `mount -o` takes them.
    """

    source: str = field(default="", metadata=_OMIT_EMPTY)
    destination: str = field(default="", metadata=_OMIT_EMPTY)
    options: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)

    mount_type: ClassVar[MountType] = MountType.BIND
    _tag: ClassVar[str] = "bind"


Mount: TypeAlias = DriveMount | BindMount
"""One mount; its class is its kind (model: `Mount`)."""


@dataclass(slots=True, eq=False, repr=False)
class Capabilities(Message):
    """The capability sets of the domain's processes, by name, e.g. "CAP_KILL" (model: `Capabilities`)."""

    ambient: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    bounding: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    effective: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    inheritable: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    permitted: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)


class CgroupProfileName(StringEnum):
    """The names of the two cgroup profiles (model: `CgroupProfileName`)."""

    THROTTLED = "throttled"
    UNTHROTTLED = "unthrottled"


@dataclass(slots=True, eq=False, repr=False)
class CgroupProfileConfig(Message):
    """Limits for a domain (model: `CgroupProfileConfig`).

    Attributes:
        cpu_limit: in CPUs: 0.5 is half of one.
        memory_limit_bytes: in bytes.
    """

    cpu_limit: float = 0.0
    memory_limit_bytes: U64 = 0


@dataclass(slots=True, eq=False, repr=False)
class CgroupProfiles(Message):
    """The limits of each profile (model: `CgroupProfiles`)."""

    throttled: CgroupProfileConfig = field(default_factory=CgroupProfileConfig)
    unthrottled: CgroupProfileConfig = field(default_factory=CgroupProfileConfig)


@dataclass(slots=True, eq=False, repr=False)
class ExecUser(Message):
    """Who processes run as, in the domain's user namespace; None: not said (model: `ExecUser`)."""

    uid: U32 | None = None
    gid: U32 | None = None


@dataclass(slots=True, eq=False, repr=False)
class Hook(Message):
    """A program that is run when the domain starts (model: `Hook`).

    Attributes:
        name: tells this hook from the others.
        path: the executable, in the mount namespace of the domain's parent.
        args: its arguments, without argv[0].
        envs: its environment; None: not said.
    """

    name: str
    path: str
    args: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    envs: Mapping[str, str] | None = field(default=None, metadata=_OMIT_EMPTY)


@dataclass(slots=True, eq=False, repr=False)
class ConfigureRequest(Message):
    """Set a domain's configuration (model: `ConfigureRequest`).

    Attributes:
        domain: the domain's name.
        mounts: in the order in which they are made.
        capabilities: the capability sets; None: not said.
        seccomp_filters: names of system call filters.
        cgroup_profiles: the limits of each profile; None: not said. A thaw always applies `throttled`.
        start_profile: the profile that applies from the start, a `CgroupProfileName`; "": none.
        exec_user: who processes run as; None: what the domain's configuration file says.
        additional_start_hooks: run when the domain starts, in order, after those of its configuration file.
    """

    domain: str
    mounts: list[Mount] = field(default_factory=list, metadata=_OMIT_EMPTY)
    capabilities: Capabilities | None = field(default=None, metadata=_OMIT_EMPTY)
    seccomp_filters: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    cgroup_profiles: CgroupProfiles | None = field(default=None, metadata=_OMIT_EMPTY)
    start_profile: CgroupProfileName | str = field(default="", metadata=_OMIT_EMPTY)
    exec_user: ExecUser | None = field(default=None, metadata=_OMIT_EMPTY)
    additional_start_hooks: list[Hook] = field(default_factory=list, metadata=_OMIT_EMPTY)


# --- Processes -------------------------------------------------------------------------------------------


class ManagedLoggingTopic(StringEnum):
    """Whose logs they are (model: `ManagedLoggingTopic`)."""

    RUNTIME = "runtime"
    RUNTIME_EXTENSION = "runtime_extension"


class ManagedLoggingFormat(StringEnum):
    """How log records are told apart (model: `ManagedLoggingFormat`)."""

    LINE = "line"
    MESSAGE = "message"


@dataclass(slots=True, eq=False, repr=False)
class ManagedLogging(Message):
    """Where managed logs go (model: `ManagedLogging`).

    Attributes:
        topic: a `ManagedLoggingTopic`; "": none.
        formats: the `ManagedLoggingFormat`s that the process may write; None: not said.
    """

    topic: ManagedLoggingTopic | str = ""
    formats: list[ManagedLoggingFormat | str] | None = None


@dataclass(slots=True, eq=False, repr=False)
class Logging(Message):
    """What happens to a process's logs (model: `Logging`)."""

    managed: ManagedLogging = field(default_factory=ManagedLogging)


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class ExecRequest(Message):
    """Start a process (model: `ExecRequest`).

    Attributes:
        name: the process's name, which the caller makes up; unique within its domain.
        domain: where it runs.
        path: the executable, within the domain's root; also its argv[0].
        args: its arguments, without argv[0].
        cwd: its working directory; None or "": the domain's root.
        env: its environment; None: not said.
        log_config: what happens to its logs.
        stdin: what it reads. Local, as all that follow: never part of the JSON.
        stdout: where its output goes: passed on if it has a descriptor, else written to; None: /dev/null.
        stderr: likewise for its error output.
        extra_files: become its descriptors 3, 4, and so on.
    """

    name: str
    domain: str
    path: str
    args: list[str] = field(default_factory=list, metadata=_OMIT_EMPTY)
    cwd: str | None = field(default=None, metadata=_OMIT_EMPTY)
    env: Mapping[str, str] | None = field(default=None, metadata=_OMIT_EMPTY)
    log_config: Logging = field(default_factory=Logging)
    stdin: HasFileno | None = field(default=None, metadata=_LOCAL)
    stdout: HasFileno | Writer | None = field(default=None, metadata=_LOCAL)
    stderr: HasFileno | Writer | None = field(default=None, metadata=_LOCAL)
    extra_files: list[HasFileno] = field(default_factory=list, metadata=_LOCAL)


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class TerminateRequest(Message):
    """Ask a process to end, and do not wait (model: `TerminateRequest`)."""

    name: str
    domain: str


@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class KillRequest(Message):
    """End a process and wait for it until the deadline (model: `KillRequest`).

    Attributes:
        name: the process's name.
        domain: its domain.
        deadline: an instant to come; a datetime with a time zone. Decoding gives a `Timestamp`.
    """

    name: str
    domain: str
    deadline: datetime


# --- Stopping, freezing, thawing -------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class StopRequest(Message):
    """Stop a domain (model: `StopRequest`). `deadline` is as in `KillRequest`."""

    domain: str
    deadline: datetime


@dataclass(slots=True, eq=False, repr=False)
class FreezeRequest(Message):
    """Freeze a domain (model: `FreezeRequest`)."""

    domain: str


@dataclass(slots=True, eq=False, repr=False)
class ThawRequest(Message):
    """Let a domain run, and begin a new cycle (model: `ThawRequest`)."""

    domain: str


@dataclass(slots=True, eq=False, repr=False)
class MicrovmNetworkInterfaceMetrics(Message):
    """Traffic of one network interface in a cycle, in bytes (model: `MicrovmNetworkInterfaceMetrics`)."""

    received_bytes: U64 = 0
    transmitted_bytes: U64 = 0


@dataclass(slots=True, eq=False, repr=False)
class CycleDeltaMetrics(Message):
    """What the last cycle cost (model: `CycleDeltaMetrics`).

    Attributes:
        domain_cpu_run_ns: CPU time of the domain, in nanoseconds.
        domain_run_ns: wall time of the cycle, in nanoseconds.
        service_cpu_run_ns: CPU time of the supervisor itself, in nanoseconds.
        domain_max_memory_usage_bytes: the most memory that the domain had, in bytes.
        microvm_cpu_run_ns: CPU time of the whole machine, in nanoseconds.
        microvm_network_interfaces: the traffic by interface name; None: not said.
        idle_cpu_run_ns: time in which the machine's CPUs were idle, in nanoseconds.
    """

    domain_cpu_run_ns: U64 = 0
    domain_run_ns: U64 = 0
    service_cpu_run_ns: U64 = 0
    domain_max_memory_usage_bytes: U64 = 0
    microvm_cpu_run_ns: U64 = 0
    microvm_network_interfaces: Mapping[str, MicrovmNetworkInterfaceMetrics] | None = None
    idle_cpu_run_ns: U64 = 0


@dataclass(slots=True, eq=False, repr=False)
class StopResponse(Message):
    """The cost of the cycle that the stop ended (model: `StopResponse`)."""

    cycle_delta_metrics: CycleDeltaMetrics = field(default_factory=CycleDeltaMetrics)


@dataclass(slots=True, eq=False, repr=False)
class FreezeResponse(Message):
    """The cost of the cycle that the freeze ended (model: `FreezeResponse`)."""

    cycle_delta_metrics: CycleDeltaMetrics = field(default_factory=CycleDeltaMetrics)


# --- Events ----------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False, repr=False)
class EventsRequest(Message):
    """Subscribe to a domain's events (model: `EventsRequest`)."""

    domain: str


@dataclass(slots=True, eq=False, repr=False)
class ProcessTermination(Message):
    """How a process ended (model: `ProcessTermination`). Its JSON keys are Go's names of the fields.

    Attributes:
        domain: the process's domain.
        name: the process's name.
        signo: the signal that ended it, if one did.
        exit_status: what it exited with, if it did.
    """

    domain: str | None = field(default=None, metadata={"key": "Domain"})
    name: str | None = field(default=None, metadata={"key": "Name"})
    signo: I32 | None = field(default=None, metadata={"key": "Signo"})
    exit_status: I32 | None = field(default=None, metadata={"key": "ExitStatus"})

    def signaled(self) -> int | None:
        """The number of the signal that ended the process; None if none did."""
        return self.signo

    def exited(self) -> int | None:
        """The status that the process exited with; None if it did not exit by itself."""
        return self.exit_status

    def success(self) -> bool:
        """Whether the process exited with status 0."""
        return self.exit_status == 0

    def __str__(self) -> str:
        """As Go words it: "exit status 1", "signal: killed".

        Raises:
            ValueError: neither a status nor a signal is there. `process_terminated` gives no such object.
        """
        if self.exit_status is not None:
            return f"exit status {self.exit_status}"
        if self.signo is None:
            raise ValueError("a termination has an exit status or a signal; this one has neither")
        known = 0 < self.signo < len(_SIGNALS)
        return f"signal: {_SIGNALS[self.signo] if known else f'signal {self.signo}'}"


# Go's names of the signals on Linux, by number. They are not those of strsignal(3).
_SIGNALS = (
    "",
    "hangup",
    "interrupt",
    "quit",
    "illegal instruction",
    "trace/breakpoint trap",
    "aborted",
    "bus error",
    "floating point exception",
    "killed",
    "user defined signal 1",
    "segmentation fault",
    "user defined signal 2",
    "broken pipe",
    "alarm clock",
    "terminated",
    "stack fault",
    "child exited",
    "continued",
    "stopped (signal)",
    "stopped",
    "stopped (tty input)",
    "stopped (tty output)",
    "urgent I/O condition",
    "CPU time limit exceeded",
    "file size limit exceeded",
    "virtual timer expired",
    "profiling timer expired",
    "window changed",
    "I/O possible",
    "power failure",
    "bad system call",
)


@dataclass(slots=True, eq=False, repr=False)
class EventData(Message):
    """What happened: fields are None where they do not belong to the type of event (model: `EventData`).

    Attributes:
        type: the type of event, e.g. "process_termination" or "event_loss".
        domain: the process's domain.
        name: the process's name.
        cause: why the process ended: "exited", "signaled" or "oom_killed".
        signo: the signal that ended it, if one did.
        exit_status: what it exited with, if it did.
        size: how many events were lost.
    """

    type: str = ""
    domain: str | None = None
    name: str | None = None
    cause: str | None = None
    signo: I32 | None = None
    exit_status: I32 | None = None
    size: U64 | None = None

    def event_loss(self) -> int | None:
        """How many events were lost because their reader was slow; None if this is another event."""
        return self.size

    def process_terminated(self) -> ProcessTermination | None:
        """How the process ended; None if this is another event. As in Go, the event's `type` has no say."""
        if self.signo is None and self.exit_status is None:
            return None
        return ProcessTermination(self.domain, self.name, self.signo, self.exit_status)


@dataclass(slots=True, eq=False, repr=False)
class Event(Message):
    """One event (model: `Event`).

    Attributes:
        timestamp_millis: when it happened, in milliseconds since the epoch.
        event: what happened.
    """

    timestamp_millis: U64 = 0
    event: EventData = field(default_factory=EventData)
