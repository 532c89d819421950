"""What all commands share: exit statuses, the way to fail, the parser."""

from __future__ import annotations

import argparse
from datetime import datetime, timedelta, timezone
from typing import NoReturn

__all__ = [
    "TIMED_OUT",
    "OWN_FAILURE",
    "CANNOT_EXECUTE",
    "NOT_FOUND",
    "Failure",
    "Parser",
    "deadline",
    "one_line",
]

# As timeout(1) and env(1) have them.
TIMED_OUT = 124
OWN_FAILURE = 125
CANNOT_EXECUTE = 126
NOT_FOUND = 127


class Failure(Exception):
    """Ends the command with one line on stderr and `status`."""

    def __init__(self, message: str, status: int = OWN_FAILURE) -> None:
        super().__init__(message)
        self.status = status


class Parser(argparse.ArgumentParser):
    """The parser of one command ("": of `pysup` itself). What is wrong raises a Failure."""

    def __init__(self, command: str, description: str, *, usage: str | None = None, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"pysup {command}".rstrip(),
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise Failure(f"{message} (see {self.prog} --help)")


def one_line(message: str) -> str:
    """`message` without line breaks."""
    return " ".join(message.splitlines())


def deadline(seconds: float) -> datetime:
    """The instant that is `seconds` from now."""
    return datetime.now(timezone.utc) + timedelta(seconds=seconds)
