"""The `pysup` command.

Each command is a module of its own with `main(arguments) -> status`, imported only when it is asked for.
"""

from __future__ import annotations

import importlib
import io
import os
import signal
import sys

from pysup.cli.base import OWN_FAILURE, Failure, Parser, one_line
from pysup.errors import SupervisorError

__all__ = ["main"]

COMMANDS = {
    "run": "run a command in a domain of its own, with limits, and tell what it cost",
    "doctor": "show what this machine offers, what is missing and why, and measure it",
    "demo": "a tour on live processes: freeze, meter, thaw, limit, kill",
}


def main(argv: list[str] | None = None) -> int:
    """Carries out one command line (without the program's name; None: this program's) and gives its status.

    Failures are told in one line on stderr; a traceback never is.
    """
    try:
        _open_standard_streams()
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
        return status
    except Failure as failure:
        message, status = str(failure), failure.status
    except SupervisorError as error:
        message, status = error.message or str(error), OWN_FAILURE
    except KeyboardInterrupt:
        message, status = "interrupted", 128 + signal.SIGINT
    except BrokenPipeError:
        message, status = "", 128 + signal.SIGPIPE  # the reader of stdout has gone, and knows it
    except OSError as error:
        what = f"{error.filename}: " if error.filename is not None else ""
        message, status = f"{what}{error.strerror or error}", OWN_FAILURE
    except Exception as error:
        message, status = f"{type(error).__name__}: {error}", OWN_FAILURE
    if message:
        print(f"pysup: {one_line(message)}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # nor could the interpreter at its exit, which would say so: let it write into nothing
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _dispatch(arguments: list[str]) -> int:
    try:
        if arguments and arguments[0] in COMMANDS:
            module = importlib.import_module(f"pysup.cli.{arguments[0]}")
            return int(module.main(arguments[1:]))
        return _no_command(arguments)
    except SystemExit as done:  # argparse has printed the help or the version
        sys.stdout.flush()
        return int(done.code or 0)


def _no_command(arguments: list[str]) -> int:
    from pysup import __version__

    names = ", ".join(COMMANDS)
    if arguments and not arguments[0].startswith("-"):
        raise Failure(f"there is no command {arguments[0]!r}; there are {names} (see pysup --help)")
    parser = Parser(
        "",
        "Supervise processes on one Linux machine: run, freeze, meter, thaw and kill them.",
        usage="pysup COMMAND ...",
        epilog="commands:\n"
        + "".join(f"  {name:10}{summary}\n" for name, summary in COMMANDS.items())
        + "\n`pysup COMMAND --help` tells more about each.",
    )
    parser.add_argument("--version", action="version", version=f"pysup {__version__}")
    parser.parse_args(arguments)
    raise Failure(f"no command was given; there are {names} (see pysup --help)")


def _open_standard_streams() -> None:
    """Puts /dev/null where a standard stream is closed, so that no other file comes to stand in its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
