"""What the supervisor's calls raise, and the wire form of an error.

    Exception
    └── SupervisorError          kind and message; itself only for a kind not listed here
        ├── NoSuchEntityError    "no_such_entity": no domain or process of that name
        ├── InvalidStateError    "invalid_state": the domain's state does not allow the call
        ├── SerdeError           "serde": a message that is not JSON, or does not fit the model
        └── FailureError         "failure": anything else that went wrong while the call was carried out

`SupervisorError` is also the model's type of that name: what a server answers is what a client raises.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar

__all__ = [
    "ErrorKind",
    "SupervisorError",
    "NoSuchEntityError",
    "InvalidStateError",
    "SerdeError",
    "FailureError",
]


class StringEnum(str, Enum):
    """Named strings: each member equals, hashes, prints and formats as its plain text, on every Python."""

    def __str__(self) -> str:
        return str.__str__(self.value)


class ErrorKind(StringEnum):
    """Why a call failed. A peer may send a kind that is not listed; it stays a plain string."""

    NO_SUCH_ENTITY = "no_such_entity"
    """The domain or process is not known."""
    INVALID_STATE = "invalid_state"
    """The state of the domain does not allow the call; nothing was changed."""
    SERDE = "serde"
    """A message could not be written or read."""
    FAILURE = "failure"
    """Everything else."""


class SupervisorError(Exception):
    """A call that the supervisor refused or could not finish (model: `SupervisorError`).

    Two errors are equal only if they are the same object, as with every exception; compare `to_dict()`.

    Attributes:
        kind: an `ErrorKind`, or the plain text of an unknown one (wire: `error_kind`).
        message: for a human, or None (wire: `message`).
        errno: the kernel's error number, where one lies behind this. Local: never sent.
        step: the step that failed, for instance `"execve"`. Local: never sent.
    """

    kind: ErrorKind | str
    message: str | None
    errno: int | None
    step: str | None

    def __init__(
        self,
        kind: ErrorKind | str = "",
        message: str | None = None,
        *,
        errno: int | None = None,
        step: str | None = None,
    ) -> None:
        # Exception.__new__ has kept the positional arguments in `args`, and unpickling calls the class with
        # those before it restores the attributes. So every argument here and below has a default.
        self.kind = kind
        self.message = message
        self.errno = errno
        self.step = step

    def error(self) -> str:
        """The kind alone: the text of this error in the model's Go form."""
        return str(self.kind)

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.kind), self.message) if part)

    def __repr__(self) -> str:
        local = "".join(
            f", {name}={value!r}" for name, value in (("errno", self.errno), ("step", self.step)) if value is not None
        )
        return f"{type(self).__name__}(kind={str(self.kind)!r}, message={self.message!r}{local})"

    def to_dict(self) -> dict[str, Any]:
        """The wire form, `{"error_kind": ..., "message": ...}`.

        A message may quote a file name that is not Unicode. Reporting an error must not fail for that, so
        what UTF-8 cannot hold becomes U+FFFD here, and only here.

        Raises:
            SerdeError: an attribute has the wrong type.
        """
        kind = _text("error_kind", self.kind)
        return {
            "error_kind": _printable(kind),
            "message": None if self.message is None else _printable(_text("message", self.message)),
        }

    def to_json(self) -> bytes:
        """`to_dict` as UTF-8 JSON. Raises what `to_dict` raises."""
        import orjson

        return orjson.dumps(self.to_dict())

    @staticmethod
    def from_dict(data: object) -> SupervisorError:
        """The error in `data`, as the subclass of its kind; `SupervisorError` itself for an unknown kind.

        Other keys are ignored; a missing or null kind is "", a missing or null message is None.

        Raises:
            SerdeError: `data` is not of this form. (It is raised; a serde error in `data` is returned.)
        """
        if data is None:
            return SupervisorError()
        if not isinstance(data, dict):
            raise SerdeError(f"SupervisorError: expected an object, got {describe(data)}")
        kind, message = data.get("error_kind"), data.get("message")
        kind = "" if kind is None else _text("error_kind", kind)
        if message is not None:
            message = _text("message", message)
        known = _CLASSES.get(kind)
        return SupervisorError(kind, message) if known is None else known(message)

    @staticmethod
    def from_json(data: bytes | str) -> SupervisorError:
        """The error in a JSON text. As `from_dict`; text that is not JSON is a `SerdeError` too."""
        return SupervisorError.from_dict(parse_json(data))


class _KnownError(SupervisorError):
    """An error whose class says its kind. The tree above leaves it out: nobody catches it by name."""

    _kind: ClassVar[ErrorKind]

    def __init__(self, message: str | None = None, *, errno: int | None = None, step: str | None = None) -> None:
        super().__init__(self._kind, message, errno=errno, step=step)


class NoSuchEntityError(_KnownError):
    """No domain or process has that name."""

    _kind = ErrorKind.NO_SUCH_ENTITY


class InvalidStateError(_KnownError):
    """The domain is in a state that does not allow the call. Nothing was changed."""

    _kind = ErrorKind.INVALID_STATE


class SerdeError(_KnownError):
    """A message that is not JSON, or a value that does not fit its field; the message names the field."""

    _kind = ErrorKind.SERDE


class FailureError(_KnownError):
    """The call was allowed and could not be carried out; what had been done of it is undone."""

    _kind = ErrorKind.FAILURE


_CLASSES: dict[str, type[_KnownError]] = {
    cls._kind: cls for cls in (NoSuchEntityError, InvalidStateError, SerdeError, FailureError)
}


def parse_json(data: bytes | str) -> Any:
    """The value of one JSON text, strictly RFC 8259. Raises `SerdeError` for anything else."""
    import orjson  # here, not above: it costs as much as the rest of `import pysup.errors`

    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise SerdeError(f"not JSON: {error}") from None


def describe(value: object) -> str:
    """What `value` is, for the tail of "expected a string, got ...": short, however large the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        import json

        return json.dumps(value if len(value) <= 40 else value[:40] + "...")
    if isinstance(value, int):  # a huge int cannot be printed at all: CPython limits the digits
        return str(int(value)) if value.bit_length() <= 128 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "an array"
    return f"a {type(value).__name__}"


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise SerdeError(f"{key}: expected a string, got {describe(value)}")
    return str.__str__(value)


def _printable(text: str) -> str:
    if text.isascii():
        return text
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
