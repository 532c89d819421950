"""Figures and tables for a terminal, or for a file or pipe where none is."""

from __future__ import annotations

import os
import shutil
import signal
import textwrap
from collections.abc import Sequence
from typing import TextIO

from pysup.model import EventData

__all__ = ["Printer", "ending", "percentile", "size"]


def size(count: int) -> str:
    """A number of bytes in the unit that suits it: "12.3 MiB"."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.1f} {unit}"
    return f"{count} bytes"


def ending(event: EventData) -> str:
    """How a process ended, in words."""
    if event.exit_status is not None:
        return f"exited with status {event.exit_status}"
    if event.signo is None:
        return "ended, it is not known how"
    try:
        name = signal.Signals(event.signo).name
    except ValueError:
        name = f"signal {event.signo}"
    return f"killed by {name}, out of memory" if event.cause == "oom_killed" else f"killed by {name}"


def percentile(samples: Sequence[int], percent: float) -> int:
    """The sample that `percent` of all are not above (nearest rank)."""
    rank = -int(-len(samples) * percent // 100)  # rounded up
    return sorted(samples)[max(rank, 1) - 1]


class Printer:
    """Writes to a stream what it can show: colours on a terminal, block characters where it has them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._colours = stream.isatty() and not plain
        self._width = min(shutil.get_terminal_size((100, 24)).columns, 140)
        try:
            "µ█▏…".encode(stream.encoding or "ascii")
            self._unicode = True
        except (UnicodeEncodeError, LookupError):
            self._unicode = False

    def heading(self, text: str) -> None:
        """A line that stands out, after an empty one."""
        self.line()
        self.line(f"\033[1m{text}\033[0m" if self._colours else text)

    def line(self, text: str = "") -> None:
        """One line, as it is, shown at once."""
        print(text, file=self._stream, flush=True)

    def say(self, text: str, *, item: str = "") -> None:
        """Sentences, filled to the width; after the mark of an item, if they are one of a list."""
        mark = f"  {item} " if item else ""
        self.line(textwrap.fill(text, self._width, initial_indent=mark, subsequent_indent=" " * len(mark)))

    def duration(self, ns: float) -> str:
        """A time in the unit that suits it: "12.3 µs"."""
        for factor, unit in ((1_000_000_000, "s"), (1_000_000, "ms")):
            if ns >= factor:
                return f"{ns / factor:.3g} {unit}" if ns < 1000 * factor else f"{ns / factor:.0f} {unit}"
        return f"{ns / 1000:.3g} {'µs' if self._unicode else 'us'}"

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]], *, right: bool = False) -> None:
        """Columns under a header; `right` sets all but the first to the right.

        Where the width does not suffice, the last column is wrapped.
        """
        widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
        room = max(self._width - 2 - sum(width + 2 for width in widths[:-1]), 24)
        widths[-1] = min(widths[-1], room)
        for number, row in enumerate((header, *rows)):
            last = textwrap.wrap(row[-1], widths[-1]) or [""]
            for cells in [(*row[:-1], last[0]), *(("",) * (len(row) - 1) + (more,) for more in last[1:])]:
                aligned = (
                    cell.rjust(width) if right and i else cell.ljust(width)
                    for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
                )
                text = "  " + "  ".join(aligned).rstrip()
                self.line(f"\033[2m{text}\033[0m" if self._colours and not number else text)

    def histogram(self, samples: Sequence[int], rows: int = 8) -> None:
        """How often each time occurs: rows of equal ratio up to the 99th percentile; one for the rest."""
        low, high = min(samples), max(percentile(samples, 99), min(samples) + 1)
        bounds = [low * (high / low) ** (i / rows) for i in range(1, rows)] + [high]
        counts = [0] * (rows + 1)
        for sample in samples:
            counts[sum(sample > bound for bound in bounds)] += 1
        room = min(self._width - 24, 60)
        for i, count in enumerate(counts):
            label = ("<= " + self.duration(bounds[i])) if i < rows else "above"
            if i < rows or count:
                self.line(f"  {label:>11}  {self._bar(count / max(counts) * room)} {count}")

    def _bar(self, length: float) -> str:
        eighths = round(length * 8)
        if not self._unicode:
            return "#" * (-(-eighths // 8))
        return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
