"""Taking turns: who is compared runs in one and the same run, a burst each, again and again, and only ratios are told.

A side is a step that is repeated and gives the nanoseconds of its parts: a function of this process, or a program that
is asked over a pipe (limit/loop.h).
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import TracebackType

__all__ = ["MODES", "WARM_UP", "Build", "Case", "Function", "Places", "Program", "Side", "Table", "Turns", "measure"]

HERE = Path(__file__).resolve().parent
MODES = ("auto", "v2", "v1", "none")
WARM_UP = 3


@dataclass
class Side:
    """One of those who are compared; `series[part]` are all times so far, in ns."""

    name: str
    parts: Sequence[str]
    series: list[list[int]] = field(default_factory=list)

    def burst(self, count: int) -> list[list[int]]:
        """Makes that many steps; the times of the parts of each."""
        raise NotImplementedError

    def run(self, count: int) -> None:
        """Makes steps and keeps their times."""
        self.add(self.burst(count))

    def add(self, steps: list[list[int]]) -> None:
        """Keeps times."""
        if not self.series:
            self.series = [[] for _ in self.parts]
        for step in steps:
            for part, value in enumerate(step):
                self.series[part].append(value)


@dataclass
class Function(Side):
    """A step in this process."""

    step: Callable[[], Sequence[int]] = lambda: ()

    def burst(self, count: int) -> list[list[int]]:
        return [list(self.step()) for _ in range(count)]


class Program(Side):
    """A step in a program of its own."""

    def __init__(self, name: str, parts: Sequence[str], argv: Sequence[str | Path]) -> None:
        super().__init__(name, parts)
        self._process = subprocess.Popen([str(arg) for arg in argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def burst(self, count: int) -> list[list[int]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(b"%d\n" % count)
        stdin.flush()
        lines = [stdout.readline() for _ in range(count)]
        if not lines[-1]:
            raise RuntimeError(f"{self._process.args!r} has ended with status {self._process.wait()}")
        return [[int(word) for word in line.split()] for line in lines]

    def __enter__(self) -> Program:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        # At the end of its input it ends by itself, and undoes what it has made.
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()


@dataclass
class Case:
    """A comparison: the first side is what the others are measured against."""

    name: str
    mode: str
    limit: Side
    others: Sequence[Side]
    bursts: int = 20
    size: int = 10  # steps of a burst


def measure(case: Case) -> None:
    """A B C, A B C, …; the first steps of each are thrown away."""
    sides = [case.limit, *case.others]
    for side in sides:
        side.burst(WARM_UP)
    for _ in range(case.bursts):
        for side in sides:
            side.run(case.size)


class Turns:
    """The other sides' turns, for who makes the steps of one side by itself: a burst each before each of its own."""

    def __init__(self, sides: Sequence[Side], size: int) -> None:
        self._sides = sides
        self._size = size
        self._steps = 0
        for side in sides:
            side.burst(WARM_UP)

    def next(self) -> None:
        """Before each step."""
        if self._steps % self._size == 0:
            for side in self._sides:
                side.run(self._size)
        self._steps += 1


def _quantile(values: list[int], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1000


def _us(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


class Table:
    """All that was measured, and how it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.skipped: list[str] = []

    def add(self, case: Case) -> None:
        """A row for each part and each side. A part that the limit does not have is compared with its last."""
        limits = dict(zip(case.limit.parts, case.limit.series, strict=True))
        named: set[str] = set()
        for part in dict.fromkeys(part for side in case.others for part in side.parts):
            limit = limits.get(part) or case.limit.series[-1]
            low = statistics.median(limit) / 1000
            what = f"{case.name}: {part}" if part else case.name
            for side in [case.limit, *case.others]:
                if side is case.limit:
                    values = limit
                elif part in side.parts:
                    values = side.series[side.parts.index(part)]
                else:
                    continue
                middle = statistics.median(values) / 1000
                self.rows.append(
                    (
                        "" if what in named else what,
                        "" if what in named else case.mode,
                        side.name,
                        _us(middle),
                        _us(_quantile(values, 0.99)),
                        "" if side is case.limit else f"{middle / low:.2f}",
                    )
                )
                named.add(what)

    def skip(self, name: str, mode: str, reason: str) -> None:
        """What could not be measured."""
        self.skipped.append(f"{name} ({mode}): {reason}")

    def text(self) -> str:
        """The table, in µs; ratios of medians."""
        head = ("call", "cgroups", "side", "median µs", "p99 µs", "÷ limit")
        rows = [head, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        lines = []
        for index, row in enumerate(rows):
            if index and row[0]:
                lines.append("")
            cells = [
                cell.ljust(width) if column < 3 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        return "\n".join(lines + [""] + [f"skipped: {line}" for line in self.skipped])


class Build:
    """The programs, compiled once into a directory."""

    def __init__(self, directory: Path) -> None:
        import pysup

        package = Path(pysup.__file__).parent
        self.tiny = directory / "tiny"
        self.limit = directory / "limit"
        self.capi: Path | None = directory / "capi"
        compiler = os.environ.get("CC", "cc").split()
        self._run([*compiler, "-O2", "-nostdlib", "-static", "-o", self.tiny, HERE / "limit" / "tiny.c"])
        flags = ["-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
        self._run([*compiler, *flags, "-o", self.limit, HERE / "limit" / "limit.c"])
        library = package / "lib" / "libpysup.a"
        if library.exists():
            include = f"-I{package / 'include'}"
            self._run([*compiler, *flags, include, "-o", self.capi, HERE / "capi.c", library, "-lpthread"])
        else:
            self.capi = None

    @staticmethod
    def _run(argv: Sequence[str | Path]) -> None:
        if shutil.which(str(argv[0])) is None:
            raise RuntimeError(f"the limits are C programs, and there is no C compiler {argv[0]}")
        subprocess.run(list(map(str, argv)), check=True)


@cache
def _cgroups() -> dict[str, Path]:
    """Where this process stands: the directory for each v1 controller, and for "v2"."""
    mounts: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, after = line.split(" - ", 1)
        root, mount = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            mounts.setdefault("v2", (root, Path(mount)))
        elif kind == "cgroup":
            for option in options.split(","):
                mounts.setdefault(option, (root, Path(mount)))
    found: dict[str, Path] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        for kind in controllers.split(",") if controllers else ["v2"]:
            if kind in mounts:
                above, mounted = mounts[kind]
                found[kind] = mounted / os.path.relpath(own, above)
    return found


class Places:
    """Cgroups of the limit's own, beside those of pysup and of the same kinds."""

    def __init__(self, mode: str, choices: dict[str, str]) -> None:
        self.mode = mode
        self.choices = choices  # need: "cgroup v2", "cgroup v1", …
        self._stack = ExitStack()
        self._made: dict[str, Path] = {}

    def __enter__(self) -> Places:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._stack.close()

    def hierarchies(self) -> list[str]:
        """Those in which pysup makes a cgroup for a domain."""
        v1 = {"freeze": "freezer", "cpu": "cpuacct", "memory": "memory", "cpu_limit": "cpu", "memory_limit": "memory"}
        found = {
            "v2" if self.choices[need] == "cgroup v2" else v1[need] for need in v1 if "cgroup" in self.choices[need]
        }
        return sorted(found)

    def names(self, name: str) -> dict[str, Path]:
        """A path for a cgroup in each; nothing is made."""
        return {one: _cgroups()[one] / f"limit-{os.getpid()}-{name}" for one in self.hierarchies()}

    def make(self, name: str) -> dict[str, Path]:
        """A cgroup in each, removed at the end."""
        for hierarchy, path in self.names(name).items():
            path.mkdir()
            self._made[hierarchy] = path
            self._stack.callback(path.rmdir)
        return self._made

    def stats(self) -> list[str]:
        """The files that pysup reads for the metrics of a cycle, in the cgroups made."""
        files: list[Path] = []
        if self.choices["cpu"] == "cgroup v2":
            files.append(self._made["v2"] / "cpu.stat")
        elif self.choices["cpu"] == "cgroup v1":
            files.append(self._made["cpuacct"] / "cpuacct.usage")
        if self.choices["microvm_cpu"] == "cgroup v1":
            files.append(_cgroups()["cpuacct"] / "cpuacct.usage")
        else:
            files.append(Path("/proc/stat"))
        files += [Path("/proc/uptime"), Path("/proc/self/net/dev")]
        if self.choices["memory"] == "cgroup v1":
            files.append(self._made["memory"] / "memory.max_usage_in_bytes")
        elif self.choices["memory"] == "cgroup v2":
            peak = self._made["v2"] / "memory.peak"
            files.append(peak if peak.exists() else self._made["v2"] / "memory.current")
        return [f"stat={path}" for path in files]

    def freezer(self) -> list[str]:
        """How the limit freezes; needs `make`."""
        if self.choices["freeze"] == "cgroup v2":
            group = self._made["v2"]
            words = [f"freeze={group}/cgroup.freeze", f"check={group}/cgroup.events", "on=1", "off=0", "want=frozen 1"]
        else:
            group = self._made["freezer"]
            state = group / "freezer.state"
            words = [f"freeze={state}", f"check={state}", "on=FROZEN", "off=THAWED", "want=FROZEN"]
        words += [f"join={path}/cgroup.procs" for path in dict.fromkeys(p.resolve() for p in self._made.values())]
        if self.choices["memory"] == "cgroup v1":
            words.append(f"reset={self._made['memory']}/memory.max_usage_in_bytes")
        return words


def timed(*calls: Callable[[], object]) -> list[int]:
    """The nanoseconds of each call."""
    clock = time.perf_counter_ns
    found = []
    for call in calls:
        begin = clock()
        call()
        found.append(clock() - begin)
    return found
