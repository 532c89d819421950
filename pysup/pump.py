"""Output of a process into an object that has `write` but no descriptor.

What a sink cannot take is not hidden: the first write that fails is logged and all that follows is read and thrown
away, so that the process never hangs on it; a write that is slow holds the process back, as a full pipe does, and
that is logged too. The logger is "pysup".
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Pump"]

_CHUNK = 1 << 16  # bytes: what a pipe holds
_SLOW = 1.0  # seconds


class Pump:
    """Moves what comes out of a pipe into a sink, a piece a step."""

    __slots__ = ("_fd", "_label", "_sink", "lost", "on_end")

    def __init__(self, fd: int, sink: Any, label: str) -> None:
        self._fd = fd
        self._sink = sink
        self._label = label
        self.lost = 0
        """Bytes that the sink did not take."""
        self.on_end: Callable[[], object] | None = None
        """Called before the pipe is closed."""

    @property
    def done(self) -> bool:
        """Whether the end was reached: no process holds the other side any more."""
        return self._fd < 0

    def wait(self, wait: int) -> bool:
        """Whether it is done. There is no notice of it, so this looks again after a millisecond."""
        if not self.done and wait:
            time.sleep(min(wait, 10**6) / 1e9)
        return self.done

    def step(self) -> bool:
        """Moves what waits (waits for it, if the pipe blocks); False at the end."""
        try:
            data = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return True
        if data:
            self._write(data)
            return True
        self.close()
        return False

    def close(self) -> None:
        """Lets go of the pipe."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            if self.on_end:
                self.on_end()
            os.close(fd)
        if self.lost:
            _log(f"{self._label}: {self.lost} bytes of output were lost, for the sink had failed")

    def _write(self, data: bytes) -> None:
        if self.lost:
            self.lost += len(data)
            return
        began = time.monotonic()
        rest = memoryview(data)
        try:
            while rest:
                taken = self._sink.write(bytes(rest))
                # A raw stream may take less than it is given; None, or nonsense, counts as all.
                rest = rest[taken:] if isinstance(taken, int) and 0 < taken < len(rest) else rest[:0]
        except Exception as error:
            self.lost += len(rest)
            _log(f"{self._label}: the sink {self._sink!r} failed, its output is thrown away from here on: {error!r}")
        slow = time.monotonic() - began
        if slow > _SLOW:
            _log(f"{self._label}: the sink {self._sink!r} took {slow:.1f} s for a write; the process had to wait")


def _log(text: str) -> None:
    import logging

    logging.getLogger("pysup").warning("%s", text)
