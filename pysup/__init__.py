"""Named processes in named domains, frozen, thawed, metered and killed within microseconds.

    import pysup
    from pysup.model import ExecRequest, StartRequest

    with pysup.LocalSupervisor() as supervisor:
        supervisor.start(StartRequest("web"))
        supervisor.exec(ExecRequest(domain="web", name="worker-1", path="/bin/sleep", args=["60"]))

The request and event types are in `pysup.model`, what the calls mean in `pysup.api`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pysup._native import Provider, version
from pysup.errors import (
    ErrorKind,
    FailureError,
    InvalidStateError,
    NoSuchEntityError,
    SerdeError,
    SupervisorError,
)
from pysup.local import EventStream, LocalSupervisor

if TYPE_CHECKING:
    from pysup.aio import AsyncEventStream, AsyncLocalSupervisor

__all__ = [
    "AsyncEventStream",
    "AsyncLocalSupervisor",
    "ErrorKind",
    "EventStream",
    "FailureError",
    "InvalidStateError",
    "LocalSupervisor",
    "NoSuchEntityError",
    "Provider",
    "SerdeError",
    "SupervisorError",
    "__version__",
    "get_include",
    "get_library_dir",
]

__version__ = version()


def get_include() -> str:
    """The directory of pysup.h, for those who embed the core."""
    return _installed("include")


def get_library_dir() -> str:
    """The directory of libpysup.a, for those who embed the core."""
    return _installed("lib")


def _installed(part: str) -> str:
    from importlib.resources import files

    return str(files("pysup") / part)


def __getattr__(name: str) -> Any:
    if name in ("AsyncLocalSupervisor", "AsyncEventStream"):  # asyncio is heavy: only for who uses it
        from pysup import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
